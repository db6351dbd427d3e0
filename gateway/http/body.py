# SPDX-License-Identifier: Apache-2.0
"""The body of a request as the application sees it: `wsgi.input`, and strict.

Answers for the end of a body: a body that is short of its Content-Length, whose last chunk never came, whose chunks
are malformed or whose client stalls ends in `UploadTruncated`, never in a clean end of file, and goes on ending so.
`100 Continue` goes out when the application first reads, so one that refuses without reading never asks for the data.
A chunk is never held: what the application takes is what is received. Does not decide who may upload.

Threading: belongs to one request and its worker thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.http.admission import ClientGone, Pace
from gateway.http.wire import Wire
from glancefs.errors import InvalidRequest, UploadTruncated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WHOLE_MOST = 16 * 1024 * 1024
"""The most that `read()` without a size gives; larger bodies must be read in blocks."""

_BLOCK = 256 * 1024
_LINE_BLOCK = 16 * 1024
_CHUNK_LINE = 1024
_TRAILER_BYTES = 8192
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_WHOLE_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,4})\r\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """`wsgi.input` of a request with no body, and what the two kinds of body share.

    All reading methods raise `UploadTruncated` when the body can't be had whole.
    """

    def __init__(self, *, wire: Wire, pace: Pace, expects: bool) -> None:
        self._wire = wire
        self._pace = pace
        self._expects = expects
        self._failure: str | None = None
        self._line_rest = b""
        self.taken = 0
        """How many bytes of the body the application has read."""

    @property
    def finished(self) -> bool:
        """Whether the whole body was taken off the wire."""
        return True

    @property
    def awaited(self) -> bool:
        """Whether the client still waits to be told to send."""
        return self._expects

    def skip_received(self) -> bool:
        """Throw away a rest that was received already. False when more of the body is still to come."""
        return self.finished

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer from the body; it is filled whole unless the body ends. Gives the count, 0 at the end."""
        view = memoryview(buffer).cast("B")
        filled = 0
        if self._line_rest:
            filled = min(len(view), len(self._line_rest))
            view[:filled] = self._line_rest[:filled]
            self._line_rest = self._line_rest[filled:]
        while filled < len(view):
            count = self._next(view[filled:])
            if not count:
                break
            filled += count
        return filled

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, or fewer at the end of the body.

        Without a size, the whole rest. Raises InvalidRequest when that is more than `WHOLE_MOST` bytes.
        """
        whole = size is None or size < 0
        if whole and self._known_rest() > WHOLE_MOST:
            raise _too_long()
        wanted = WHOLE_MOST + 1 if size is None or size < 0 else size
        blocks = []
        while wanted > 0:
            rest = self._known_rest()
            block = bytearray(min(wanted, _BLOCK if rest < 0 else min(max(rest, 1), WHOLE_MOST)))
            count = self.readinto(block)
            blocks.append(bytes(memoryview(block)[:count]))
            wanted -= count
            if count < len(block):
                break
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        if whole and len(data) > WHOLE_MOST:
            raise _too_long()
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """Read up to and with the next newline, at most `size` bytes (PEP 3333), and never more than `WHOLE_MOST`."""
        limit = WHOLE_MOST if size is None or size < 0 else min(size, WHOLE_MOST)
        line = bytearray()
        while len(line) < limit:
            # No more than has come: where the body breaks off behind a line, the line is still one.
            piece = self._line_rest or self._come(min(_LINE_BLOCK, limit))
            self._line_rest = b""
            if not piece:
                break
            end = piece.find(b"\n") + 1
            stop = min(end or len(piece), limit - len(line))
            line += piece[:stop]
            self._line_rest = piece[stop:]
            if line.endswith(b"\n"):
                break
        return bytes(line)

    def _come(self, most: int) -> bytes:
        block = bytearray(most)
        return bytes(block[: self._next(memoryview(block))])

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Read lines until the end, or until they hold `hint` bytes."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if 0 < hint <= total or total > WHOLE_MOST:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _known_rest(self) -> int:
        """How much can still be read; -1 when only the end will tell."""
        return len(self._line_rest)

    def _next(self, view: memoryview) -> int:
        if self._failure is not None:
            raise UploadTruncated(self._failure)
        if self.finished:
            return 0
        try:
            if self._expects:
                self._expects = False
                if not self._wire.ahead():  # RFC 9110, section 10.1.1: needless once the client began
                    self._wire.send(_CONTINUE, self._pace)
            count = self._receive(view)
        except ClientGone as error:
            self._failure = f"The data stopped coming after {self.taken} bytes: {error}."
            raise UploadTruncated(self._failure) from error
        except ValueError as error:
            self._failure = f"The chunked body is malformed: {error}."
            raise UploadTruncated(self._failure) from error
        self.taken += count
        return count

    def _receive(self, view: memoryview) -> int:
        raise NotImplementedError

    def _ended_early(self) -> ClientGone:
        return ClientGone("the client ended the connection")


class KnownBody(Body):
    """A body with a Content-Length."""

    def __init__(self, *, wire: Wire, pace: Pace, expects: bool, length: int) -> None:
        super().__init__(wire=wire, pace=pace, expects=expects)
        self._left = length

    @property
    def finished(self) -> bool:
        """Whether the whole body was taken off the wire."""
        return not self._left

    def skip_received(self) -> bool:
        """Throw away a rest that was received already. False when more of the body is still to come."""
        if self._left and self._left <= self._wire.ahead():
            self._wire.position += self._left
            self._left = 0
        return not self._left

    def _known_rest(self) -> int:
        return self._left + len(self._line_rest)

    def _receive(self, view: memoryview) -> int:
        count = self._wire.receive_into(view[: self._left], self._pace)
        if not count:
            raise self._ended_early()
        self._left -= count
        return count


class ChunkedBody(Body):
    """A body in chunks (RFC 9112, section 7.1). Extensions and trailers are bounded and ignored."""

    def __init__(self, *, wire: Wire, pace: Pace, expects: bool) -> None:
        super().__init__(wire=wire, pace=pace, expects=expects)
        self._left = 0
        self._first = True
        self._finished = False

    @property
    def finished(self) -> bool:
        """Whether the last chunk and the trailers were taken off the wire."""
        return self._finished

    def _known_rest(self) -> int:
        return -1

    def skip_received(self) -> bool:
        """Take the end of the body when it was received and nothing but it is left."""
        wire = self._wire
        end = b"0\r\n\r\n" if self._first else b"\r\n0\r\n\r\n"
        if not self._finished and not self._left and wire.buffer.startswith(end, wire.position):
            wire.position += len(end)
            self._finished = True
        return self._finished

    def _receive(self, view: memoryview) -> int:
        if not self._left:
            if count := self._take_small(view):
                return count
            self._left = self._next_chunk()
            if not self._left:
                self._skip_trailers()
                self._finished = True
                return 0
        count = self._wire.receive_into(view[: self._left], self._pace)
        if not count:
            raise self._ended_early()
        self._left -= count
        return count

    def _take_small(self, view: memoryview) -> int:
        """Take all small chunks that were received whole at once, or a client with tiny ones costs us a processor."""
        wire = self._wire
        buffer, position, end = wire.buffer, wire.position, len(wire.buffer)
        filled = 0
        while not self._first and (head := _WHOLE_CHUNK.match(buffer, position)):
            size, start = int(head[1], 16), head.end()
            if not size or start + size > end or filled + size > len(view):
                break
            view[filled : filled + size] = buffer[start : start + size]
            filled += size
            position = start + size
        wire.position = position
        return filled

    def _next_chunk(self) -> int:
        if not self._first and self._line(2):
            raise ValueError("a chunk is longer than it says")
        self._first = False
        size = _CHUNK_SIZE.fullmatch(self._line(_CHUNK_LINE))
        if size is None:
            raise ValueError("a chunk has no size")
        return int(size[1], 16)

    def _skip_trailers(self) -> None:
        left = _TRAILER_BYTES
        while line := self._line(left):
            left -= len(line) + 2
            if left <= 0:
                raise ValueError("the trailers are too long")

    def _line(self, limit: int) -> bytes:
        line = self._wire.receive_line(limit, self._pace)
        if line is None:
            raise self._ended_early()
        return line


def _too_long() -> InvalidRequest:
    return InvalidRequest(f"The body is longer than the {WHOLE_MOST} bytes that this request may have.")
