# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests of the whole product: one that many tests share, and others to start at will.

Threading: fixtures run in pytest's main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import self_signed
from tests.support.processes import Argument, Processes, product, run
from tests.support.servers import RunningServer, start_server

USERS = {"alice": "wonderland", "bob": "the builder", "root": "of all"}
"""The users of a server that asks who is there; `root` is an admin."""

Serve = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server as it is without any configuration; its images are those of many tests."""
    folder = tmp_path_factory.mktemp("server")
    with Processes(folder) as processes:
        yield start_server(processes, folder / "data")


@pytest.fixture
def serve(processes: Processes, tmp_path: Path) -> Serve:
    """Start a server of the test's own: `serve(data=, **environment)`, each option by its variable's name."""

    def start(*, data: Path | None = None, trust: Path | None = None, **options: Any) -> RunningServer:
        env = {f"GLANCEFS_{name.upper()}": str(value) for name, value in options.items()}
        return start_server(processes, data or tmp_path / "data", env=env, trust=trust)

    return start


@pytest.fixture
def tls_server(serve: Serve, tmp_path: Path) -> RunningServer:
    """A server that speaks TLS with a certificate of its own."""
    pem = self_signed(tmp_path)
    return serve(trust=pem, gateway_tls_cert=pem, gateway_tls_key=pem)


@pytest.fixture(scope="session")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two workers that asks its `USERS` who they are; many tests share it."""
    folder = tmp_path_factory.mktemp("guarded")
    for user, password in USERS.items():
        words: list[Argument] = [product(), "user", "add", "--data", folder / "data", "--password-stdin", user]
        run(words, stdin=f"{password}\n".encode())
    options = {"GLANCEFS_AUTH_MODE": "htpasswd", "GLANCEFS_AUTH_ADMINS": "root"}
    with Processes(folder) as processes:
        yield start_server(processes, folder / "data", "--workers", "2", env=options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder."""
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.e2e)
