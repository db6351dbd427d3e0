# SPDX-License-Identifier: Apache-2.0
"""One HTTP connection that can carry images: uploads that hear a refusal, answers with any number of headers.

Answers for what is sent and when sending stops: a server that refuses an upload says so while the client still sends,
and the rest of 20 GB would be sent for nothing, or end in a broken pipe that hides the reason. So a large upload asks
first (``Expect: 100-continue``, RFC 9110, section 10.1.1), and every upload listens between two blocks.
Does not know images, retries or errors of the tree.

Threading: a connection and an upload belong to one request at a time.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import IO, Any, Final, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.wait import wait_for_read

BLOCK_SIZE: Final = 1 << 18
"""How much is handed to the socket at a time: its timeout covers one block, so a slow line must carry one in time."""

ASKING_SIZE: Final = 1 << 20
"""From which size on, or when it is unknown, an upload asks before it sends."""

CONTINUE_SECONDS: Final = 1.0
"""How long the go-ahead is waited for; servers that know nothing of it never give it."""

_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
_INTERIM_START: Final = b"HTTP/1.1 1"

_BATCH_SIZE: Final = 16_384
_END_OF_HEAD: Final = frozenset({b"\r\n", b"\n"})

ImageData = bytes | bytearray | memoryview | IO[bytes] | IO[str] | Iterable[bytes | memoryview]


class SourceFailed(Exception):
    """What was to be uploaded could not be read; the cause tells why. Not an OSError, which the connection has too."""


class Upload:
    """The data of one upload, read block by block.

    Takes bytes, files open for reading (from where they stand; of text files the bytes below), pipes and iterables of
    bytes, of which only the caller knows the ``size``. Raises TypeError for anything else.
    """

    def __init__(
        self, data: ImageData, *, size: int | None = None, progress: Callable[[int], object] | None = None
    ) -> None:
        self.size: int | None = size
        """In bytes; None where it shows only at the end."""
        self.is_complete = False
        """Whether everything was handed to the connection."""
        self._progress = progress
        self._pieces = self._choose(data)

    @property
    def should_ask(self) -> bool:
        """Whether it is worth asking the server before the data are sent."""
        return self.size is None or self.size >= ASKING_SIZE

    def blocks(self) -> Iterator[bytes | memoryview]:
        """Give the data once, exactly `size` bytes where that is known. Raises SourceFailed where they are others."""
        left = self.size
        pieces = iter(self._pieces)
        while left != 0:
            piece = _next_of(pieces)
            if piece is None:
                break
            # A file that grows is half written: better nothing of it than a part that passes for the whole.
            if left is not None and (len(piece) > left or (len(piece) == left and _next_of(pieces))):
                raise SourceFailed from EOFError(f"The data go on after their end at {self.size} bytes.")
            for block in _cut(piece):
                left = None if left is None else left - len(block)
                # Before the last block goes out, since its answer may be back before anybody asks for another.
                self.is_complete = left == 0
                yield block
                if self._progress:
                    self._progress(len(block))
        if left:
            raise SourceFailed from EOFError(f"The data ended {left} bytes before their end.")
        self.is_complete = True

    def _choose(self, data: ImageData) -> Iterable[bytes | memoryview]:
        if isinstance(data, str):
            raise TypeError("The data of an image are bytes, a file or an iterator of bytes, not text.")
        if isinstance(data, bytes | bytearray | memoryview):
            self.size = memoryview(data).nbytes
            return (memoryview(data).cast("B"),)
        source = getattr(data, "buffer", data)
        if hasattr(source, "read"):
            self.size = _size_of(source)
            return _pieces_of(source)
        if isinstance(source, Iterable):
            return cast("Iterable[bytes | memoryview]", source)
        message = f"The data of an image are bytes, a file or an iterator of bytes, not {type(data).__name__}."
        raise TypeError(message)


class _AnswerFile(io.BufferedReader):
    """The bytes of an answer; hands out header lines in batches.

    http.client refuses an answer of more than a hundred header lines, and images have any number of properties. It
    joins the lines before it reads them, so a batch of lines passes for one.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw, 1 << 16)
        self._state = "status"
        self._is_interim = False
        self._held = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        if self._state == "body":
            return super().readline(size)
        if self._state == "status":
            line = super().readline(size)
            self._state = "headers"
            self._is_interim = line.startswith(_INTERIM_START)
            return line
        batch = self._batch(size)
        if batch in _END_OF_HEAD:
            self._state = "status" if self._is_interim else "body"
        return batch

    def _batch(self, size: int | None) -> bytes:
        batch, self._held = self._held, b""
        while batch not in _END_OF_HEAD and len(batch) < _BATCH_SIZE:
            line = super().readline(size)
            if not line:
                break
            # What must stand alone: the end, and lines so long that http.client judges them.
            if batch and (line in _END_OF_HEAD or len(line) > _BATCH_SIZE):
                self._held = line
                break
            batch += line
        return batch


class _Seen(io.RawIOBase):
    """A stream of which the beginning was read already."""

    def __init__(self, seen: bytes, rest: io.RawIOBase) -> None:
        self._seen = seen
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - as the class above declares it
        if not self._seen:
            return cast("int | None", self._rest.readinto(buffer))
        count = min(len(buffer), len(self._seen))
        buffer[:count] = self._seen[:count]
        self._seen = self._seen[count:]
        return count

    def close(self) -> None:
        self._rest.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer with any number of headers, of which the beginning may have been read already."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, *, seen: bytes = b""
    ) -> None:
        super().__init__(sock, debuglevel, method)
        raw = self.fp.detach()
        self.fp = _AnswerFile(_Seen(seen, raw) if seen else raw)


class Connection(HTTPConnection):
    """A connection that stops an upload as soon as the server answers it."""

    _seen = b""
    _may_send = False

    def request(  # type: ignore[override]  # urllib3 declares it in the same way
        self,
        method: str,
        url: str,
        body: Any = None,  # noqa: ANN401 - whatever urllib3 takes, and an Upload
        headers: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401 - for urllib3 to understand
    ) -> None:
        """Send a request, the body as far as the server wants it."""
        self._seen = b""
        if isinstance(body, Upload):
            self._may_send = not body.should_ask
            body = self._while_silent(body)
        super().request(method, url, body=body, headers=headers, **options)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3 declares it in the same way
        """Give the answer, beginning with what was heard while sending."""
        self.response_class = partial(_Answer, seen=self._seen)  # type: ignore[assignment]  # is only called
        return super().getresponse()

    def _while_silent(self, upload: Upload) -> Iterator[bytes | memoryview]:
        """Give the blocks until the server answers; BrokenPipeError makes urllib3 stop there and read the answer."""
        patience = time.monotonic() + CONTINUE_SECONDS
        while not self._may_send and (left := patience - time.monotonic()) > 0:
            if self._has_answered(left):
                raise BrokenPipeError
        for block in upload.blocks():
            yield block
            if not upload.is_complete and self._has_answered(0):
                raise BrokenPipeError

    def _has_answered(self, seconds: float) -> bool:
        """Wait for a final answer, or the end of the connection, and keep what was read of it."""
        if not wait_for_read(self.sock, seconds):
            return False
        self.sock.settimeout(0)
        try:
            data = self.sock.recv(1 << 16)
        except (BlockingIOError, ssl.SSLWantReadError):
            # A TLS record that is none of the answer, such as a session ticket.
            return False
        except OSError:
            return True
        finally:
            self.sock.settimeout(self.timeout)
        self._seen += data
        while interim := _INTERIM.match(self._seen):
            self._may_send = True
            self._seen = self._seen[interim.end() :]
        may_be_interim = self._seen[: len(_INTERIM_START)] == _INTERIM_START[: len(self._seen)]
        return not data or not may_be_interim


class SecureConnection(Connection, HTTPSConnection):
    """The same over TLS."""


class ConnectionPool(urllib3.HTTPConnectionPool):
    """Connections to one server."""

    ConnectionCls = Connection


class SecureConnectionPool(urllib3.HTTPSConnectionPool):
    """Connections to one server over TLS."""

    ConnectionCls = SecureConnection


def _next_of(pieces: Iterator[bytes | memoryview]) -> bytes | memoryview | None:
    try:
        return next(pieces, None)
    except Exception as error:
        raise SourceFailed from error


def _cut(piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
    if len(piece) <= BLOCK_SIZE:
        yield piece
        return
    view = memoryview(piece)
    for start in range(0, len(view), BLOCK_SIZE):
        yield view[start : start + BLOCK_SIZE]


def _size_of(source: Any) -> int | None:  # noqa: ANN401 - anything with read
    """Tell how much a file still gives; None for what has no size, such as a pipe."""
    try:
        position = int(source.tell())
    except (AttributeError, OSError):
        return None
    try:
        status = os.fstat(source.fileno())
    except (AttributeError, OSError):
        return _size_by_seeking(source, position)
    if stat.S_ISREG(status.st_mode):
        return max(0, status.st_size - position)
    return _size_by_seeking(source, position) if stat.S_ISBLK(status.st_mode) else None


def _size_by_seeking(source: Any, position: int) -> int | None:  # noqa: ANN401 - anything with read
    try:
        end = int(source.seek(0, io.SEEK_END))
        source.seek(position)
    except (AttributeError, OSError):
        return None
    return max(0, end - position)


def _pieces_of(source: Any) -> Iterator[bytes]:  # noqa: ANN401 - anything with read
    # read1 gives what a pipe has at once, instead of waiting until a block is full.
    read = getattr(source, "read1", source.read)
    while piece := read(BLOCK_SIZE):
        yield piece
