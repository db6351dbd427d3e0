# SPDX-License-Identifier: Apache-2.0
"""A client that sends whatever bytes a test wants, and a server to send them to.

Answers for raw sockets, plain and TLS, for reading one response after the other, and for a server of the gateway in
threads of the test. Does not check what it sends.

Threading: a client belongs to one thread; a server answers in its own.
"""

import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PATIENCE = 60.0
"""How long an answer may take before a test fails; never what a test measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server says that it ends the connection."""
        return self.headers.get("connection") == "close"


class RawClient:
    """One connection."""

    def __init__(self, target: tuple[str, int] | str, *, trust: str | None = None) -> None:
        if isinstance(target, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(target)
        else:
            self.sock = socket.create_connection(target, timeout=PATIENCE)
        if trust is not None:
            context = ssl.create_default_context(cafile=trust)
            context.check_hostname = False
            self.sock = context.wrap_socket(self.sock)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def finish(self) -> None:
        """Send nothing more."""
        self.sock.shutdown(socket.SHUT_WR)

    def ask(self, data: bytes, *, method: str = "GET") -> Answer:
        """Send a request and read its answer."""
        self.send(data)
        return self.answer(method=method)

    def answer(self, *, method: str = "GET") -> Answer:
        """Read one response. Raises EOFError when the connection ends before it does."""
        status, headers = self._head()
        if method == "HEAD" or status in {204, 304} or status < 200:
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        elif "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        else:
            body = self.rest()
        return Answer(status=status, headers=headers, body=body)

    def exactly(self, count: int) -> bytes:
        """Read so many bytes."""
        data = bytearray(self._rest[:count])
        self._rest = self._rest[count:]
        while len(data) < count:
            self._more()
            missing = count - len(data)
            data += self._rest[:missing]
            self._rest = self._rest[missing:]
        return bytes(data)

    def line(self) -> bytes:
        """Read a line, without its CRLF."""
        while b"\r\n" not in self._rest:
            self._more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def rest(self) -> bytes:
        """Read to the end of the connection; a reset ends it too."""
        blocks = [self._rest]
        self._rest = b""
        try:
            while block := self.sock.recv(1 << 16):
                blocks.append(block)
        except (ConnectionError, ssl.SSLError):
            blocks.append(b"")
        return b"".join(blocks)

    def _head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.line(), 16):
            data += self.exactly(size)
            assert self.line() == b""
        assert self.line() == b""
        return data

    def _more(self) -> None:
        block = self.sock.recv(1 << 16)
        if not block:
            raise EOFError(f"the connection ended after {self._rest!r}")
        self._rest += block
