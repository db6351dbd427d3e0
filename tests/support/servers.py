# SPDX-License-Identifier: Apache-2.0
"""The real server, as an operator starts it: a command in a process of its own, on a data folder.

Answers for starting it on a free port, for speaking HTTP to it without any client of ours, and for what it takes of the
machine. Does not judge anything.

Threading: `start_server` belongs to the main thread, as `Processes.start` does; a `RunningServer` may be asked by any.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.support.processes import PATIENCE, Argument, Process, Processes, product

Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)

    @property
    def image(self) -> dict[str, Any]:
        """The image that the body tells of."""
        image = self.json["image"]
        assert isinstance(image, dict)
        return image


@dataclass(slots=True, kw_only=True)
class SomeServer:
    """A server that somebody runs: where it is, and how to ask it."""

    url: str
    trust: Path | None = None
    """The certificate to trust, for a server that speaks TLS."""

    @property
    def host(self) -> str:
        """The name part of its address."""
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        """The port that it got."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def connect(self, *, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """Open a connection that may ask many things."""
        if self.trust is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.trust))
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Body = None, **options: Any
    ) -> Reply:
        """Ask once, on a connection of its own. Raises OSError and HTTPException where the answer does not come."""
        connection = self.connect(**options)
        try:
            return ask(connection, method, path, headers, body)
        finally:
            connection.close()


@dataclass(slots=True, kw_only=True)
class RunningServer(SomeServer):
    """A server in a process of this test's, and what it takes of the machine."""

    process: Process
    data: Path

    def system_processes(self) -> list[psutil.Process]:
        """The server's process and, where it has them, its workers."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def forget_peaks(self) -> None:
        """Count the highest memory use from here on (proc(5), clear_refs)."""
        for process in self.system_processes():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")

    def peaks(self) -> list[int]:
        """The highest resident memory of each process since `forget_peaks`, in bytes."""
        return [_status_bytes(process.pid, "VmHWM") for process in self.system_processes()]

    def peak_memory(self) -> int:
        """The sum of the `peaks`."""
        return sum(self.peaks())

    def memory(self) -> int:
        """The resident memory of all its processes, in bytes."""
        return sum(_status_bytes(process.pid, "VmRSS") for process in self.system_processes())


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Body = None,
) -> Reply:
    """Ask on a connection and read the whole answer. An iterable goes out in chunks."""
    connection.request(method, path, body=body, headers=dict(headers or {}))
    response = connection.getresponse()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Reply(status=response.status, headers=fields, body=response.read())


def start_server(
    processes: Processes,
    data: Path,
    *options: Argument,
    command: Iterable[Argument] = (),
    env: Mapping[str, str] | None = None,
    trust: Path | None = None,
    listen: str = "127.0.0.1:0",
    **said: Any,
) -> RunningServer:
    """Start ``glancefs serve`` on a data folder and wait until it says where it is.

    ``command`` goes in front of it, ``env`` configures it, ``said`` is handed to `Processes.start`.
    """
    words = [*command, product(), "serve", "--data", data, "--listen", listen, *options]
    process = processes.start(words, env=env, **said)
    url = process.wait_for_line(r"https?://[\w.\[\]:]+:\d+").group()
    return RunningServer(process=process, url=url, data=data, trust=trust)


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
