# SPDX-License-Identifier: Apache-2.0
"""A network that fails between a client and a server: a proxy that passes bytes on, until it is told what goes wrong.

Answers for losing requests and answers, whole connections each time, and for standing still. Parses nothing: what comes
from the client after a silence of its own is a request, what comes from the server is the answer to it.

Threading: a proxy runs in threads of its own; what goes wrong may be said by any.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Trouble(Enum):
    """What becomes of a request."""

    NONE = "none"
    LOSE_REQUEST = "lose the request"
    LOSE_ANSWER = "lose the answer"
    HANG = "hang"


class Relay:
    """Passes bytes on from an address to another, or to a local socket, both ways, as they come; a context manager."""

    def __init__(self, *, listen: str, target: tuple[str, int] | Path) -> None:
        self._listener = socket.create_server((listen, 0))
        self._target = target
        self._open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = self._connect()
            except OSError:
                return
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=[source, sink], daemon=True).start()

    def _connect(self) -> socket.socket:
        if not isinstance(self._target, Path):
            return socket.create_connection(self._target)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 18):
                sink.sendall(piece)
        # Either end ends both: neither HTTP nor its clients use half of a connection.
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._open.discard(one)


class Proxy:
    """A proxy in front of the server at a URL; a context manager. Closes each connection after trouble."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._random = random.Random(7)
        self._ended = threading.Event()
        self.next: list[Trouble] = []
        """What goes wrong with the next requests, in this order; after them, what ``chance`` says."""
        self.chance = 0.0
        """How many of the requests meet with trouble, from 0 to 1."""
        self.troubles = 0
        """How often something went wrong."""

    @property
    def url(self) -> str:
        """Where the proxy is."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        # A thread in accept(2) is not woken by close(2).
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        try:
            with client, server, contextlib.suppress(OSError):
                self._pass_on(client, server)
        finally:
            with self._lock:
                self._open -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while request := client.recv(1 << 20):
            trouble = self._choose()
            if trouble is Trouble.LOSE_REQUEST:
                return
            if trouble is Trouble.HANG:
                self._ended.wait(60)
                return
            server.sendall(request)
            answer = self._answer(client, server)
            if trouble is Trouble.LOSE_ANSWER:
                return
            client.sendall(answer)

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket) -> bytes:
        """Read one answer, which has a Content-Length, and pass on what else the client sends meanwhile."""
        answer = b""
        client.settimeout(0.0)
        server.settimeout(0.05)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    if more := client.recv(1 << 20):
                        server.sendall(more)
                with contextlib.suppress(TimeoutError):
                    answer += server.recv(1 << 20)
                head, end, body = answer.partition(b"\r\n\r\n")
                if end and len(body) >= _length(head):
                    return answer
        finally:
            client.settimeout(None)

    def _choose(self) -> Trouble:
        with self._lock:
            trouble = Trouble.NONE
            if self.next:
                trouble = self.next.pop(0)
            elif self._random.random() < self.chance:
                trouble = self._random.choice([Trouble.LOSE_REQUEST, Trouble.LOSE_ANSWER])
            self.troubles += trouble is not Trouble.NONE
            return trouble


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
