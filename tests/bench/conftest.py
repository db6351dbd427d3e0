# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: the report that they fill, the data that they send, the servers.

Threading: fixtures run in pytest's main thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.figures import Report
from tests.bench.page import page
from tests.bench.peers import Nginx, start_nginx
from tests.support.capabilities import ROOT
from tests.support.processes import Processes
from tests.support.servers import RunningServer, start_server

GIBI = 1 << 30
PAGE = ROOT / "docs" / "reference" / "performance.md"
RAW = ROOT / ".cache" / "bench.json"

Serve = Callable[..., RunningServer]
ServeNginx = Callable[..., Nginx]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder."""
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.bench)


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """What is measured; at the end it is printed, and written down if nothing was never measured on this machine."""
    report = Report()
    yield report
    sys.stdout.write(f"\n\n{report.as_text()}\n")
    # Each line's two sides were measured in one run; lines may be of different ones.
    known = report.with_earlier(RAW)
    known.save_raw(RAW)
    if known.is_complete:
        PAGE.write_text(page(known))


@pytest.fixture(scope="session")
def gibibyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 1 GiB without any order in it, in memory as long as there is room."""
    file = tmp_path_factory.mktemp("source") / "random.img"
    with file.open("wb") as data:
        for _ in range(GIBI >> 23):
            data.write(os.urandom(1 << 23))
    os.sync()
    return file


@pytest.fixture
def serve(processes: Processes, tmp_path: Path) -> Serve:
    """Start a server: `serve(workers=, data=, command=, **environment)`; it logs every request."""

    def start(
        *, workers: int = 1, data: Path | None = None, command: tuple[str, ...] = (), **options: str
    ) -> RunningServer:
        env = {f"GLANCEFS_{name.upper()}": value for name, value in options.items()}
        folder = data or tmp_path / f"data-{len(processes.started)}"
        return start_server(processes, folder, "--workers", str(workers), command=command, env=env)

    return start


@pytest.fixture
def serve_nginx(processes: Processes, tmp_path: Path) -> ServeNginx:
    """Start nginx: `serve_nginx(workers=, buffer=)`."""

    def start(**options: Any) -> Nginx:
        return start_nginx(processes, tmp_path / f"nginx-{len(processes.started)}", **options)

    return start
