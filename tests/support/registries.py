# SPDX-License-Identifier: Apache-2.0
"""Remote registries for tests: a real server on a real database, in this process or in one of its own.

Answers for one server per folder, however many open it, also from other processes. Judges nothing.

Threading: servers run in threads of their own; opening belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.assembly import make_registry_application, make_registry_metrics
from gateway.http.exchange import App
from gateway.server import Server
from glancefs.registries.base import ServedRegistry
from glancefs.registries.remote import RemoteRegistry
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.support.processes import Argument, Processes, product
from tests.support.servers import RunningServer

TOKEN = "a-secret-of-tests"
PATIENCE = 120.0
"""How long an answer may take on a machine that is busy; what a deadline does is tested on its own."""


class RegistryService:
    """A registry's server in this process, on the database of a folder; a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        token: str | None = TOKEN,
        wrap: Callable[[App], App] = lambda app: app,
        listen: str = "127.0.0.1:0",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.registry: ServedRegistry = SqlRegistry(url=registry_url(folder), migrate=True)
        self._metrics = make_registry_metrics(workers=1)
        self._application = application = make_registry_application(self.registry, token=token, metrics=self._metrics)
        self._server = Server(
            app_factory=lambda: wrap(application), listen=listen, observer=self._metrics.observe, shutdown_timeout=5
        )
        self._server.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._server.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._server.stop()
        self._application.close()
        self.registry.close()
        self._metrics.close()


class OpenedRegistry(RemoteRegistry):
    """A remote registry that ends the server which was started for it."""

    def __init__(self, *, url: str, service: RegistryService | None, note: Path) -> None:
        super().__init__(url=url, token=TOKEN, timeout=PATIENCE)
        self._service = service
        self._note = note

    def close(self) -> None:
        """Let go, and end the server."""
        super().close()
        if self._service is not None:
            with suppress(FileNotFoundError):
                self._note.unlink()
            self._service.stop()
            self._service = None


def open_remote(folder: Path) -> RemoteRegistry:
    """Open the registry of a folder through its server, which the first to open it starts, and ends."""
    note = folder / "url"
    if note.exists():
        return OpenedRegistry(url=note.read_text(), service=None, note=note)
    service = RegistryService(folder)
    note.write_text(service.url)
    return OpenedRegistry(url=service.url, service=service, note=note)


def start_registry(
    processes: Processes,
    data: Path,
    *options: Argument,
    env: Mapping[str, str] | None = None,
    listen: str = "127.0.0.1:0",
) -> RunningServer:
    """Start ``glancefs registry`` on a data folder and wait until it says where it is."""
    words = [product(), "registry", "--data", data, "--listen", listen, *options]
    process = processes.start(words, env={"GLANCEFS_REGISTRY_TOKEN": TOKEN} | dict(env or {}))
    url = process.wait_for_line(r"https?://[\w.\[\]:]+:\d+").group()
    return RunningServer(process=process, url=url, data=data)
