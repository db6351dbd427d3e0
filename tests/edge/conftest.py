# SPDX-License-Identifier: Apache-2.0
"""For the tests at the edge: a server with an application of the test's own, and a tree on a core of its own."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.http.access import Observer
from gateway.http.engine import Engine
from gateway.http.exchange import App
from gateway.http.limits import Limits
from gateway.server import Server
from glancefs.tree import ImageTree
from tests.support.rawhttp import RawClient
from tests.support.trees import Core


@dataclasses.dataclass(slots=True, kw_only=True)
class Served:
    """A server that runs, and how to reach it."""

    server: Server
    trust: str | None = None

    @property
    def target(self) -> tuple[str, int] | str:
        """Where to connect to."""
        address = self.server.address
        if address.startswith("unix:"):
            return address.removeprefix("unix:")
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def engine(self) -> Engine:
        """The server's inside."""
        engine = self.server._engine
        assert engine is not None
        return engine

    def connect(self) -> RawClient:
        """Open a connection."""
        return RawClient(self.target, trust=self.trust)


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Run an application: `serve(app, **limits)`; it is stopped at the end of the test."""
    running: list[Server] = []

    def start(
        app: App,
        *,
        listen: str = "127.0.0.1:0",
        tls_cert: Path | None = None,
        shutdown_timeout: float = 5.0,
        observer: Observer | None = None,
        **limits: float,
    ) -> Served:
        server = Server(
            app_factory=lambda: app,
            listen=listen,
            tls_cert=tls_cert,
            shutdown_timeout=shutdown_timeout,
            observer=observer,
            limits=dataclasses.replace(Limits(), **limits),  # type: ignore[arg-type]  # names and types are the test's
        )
        server.start()
        running.append(server)
        return Served(server=server, trust=str(tls_cert) if tls_cert else None)

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    """A registry and a store in a folder of the test's own."""
    core = Core.at(tmp_path)
    yield core
    core.close()


@pytest.fixture
def tree(core: Core) -> ImageTree:
    """A tree of the user `alice` on it."""
    return core.tree()
