# SPDX-License-Identifier: Apache-2.0
"""Ranges of what a server has, asked for many times a second on connections that stay open.

Answers for the one answer that is expected: 206 with the very range that was asked for (RFC 9110, sections 14.2 to
14.4), of which the bytes go straight from the socket to where they stay. Whatever else comes is nothing to this module:
who asked asks again by way of `glancefs.transport`, which knows every answer. A request takes a fifth of the time that
it takes there, where headers become objects first.

Threading: may be used from many threads at once; a connection belongs to one at a time.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections import deque
from typing import Final

from urllib3.exceptions import HTTPError

from glancefs.transport import Transport

_MOST_IDLE: Final = 16
_LARGEST_HEAD: Final = 64 << 10
_FIRST: Final = 68 << 10
"""How much is read at first: a head, and all of a short answer's body."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+) *\r\n", re.IGNORECASE)
_RANGE: Final = re.compile(rb"\r\ncontent-range: *bytes (\d+)-(\d+)/(?:\d+|\*) *\r\n", re.IGNORECASE)
_ENDS: Final = re.compile(rb"\r\n(?:transfer-encoding|content-encoding):|\r\nconnection: *close", re.IGNORECASE)


class _Stale(Exception):
    """A connection that was open ended before it answered, as servers end those that idle."""


class Ranges:
    """Ranges of what one server has."""

    def __init__(self, *, transport: Transport, timeout: float) -> None:
        """``timeout`` is in seconds, for connecting and for every silence."""
        self._transport: Final = transport
        self._timeout: Final = timeout
        self._idle: Final[deque[socket.socket]] = deque()
        self._is_closed = False

    def close(self) -> None:
        """Let go of the connections; may be called twice."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def fetch(self, path: str, start: int, stop: int) -> bytes | bytearray | None:
        """Give the bytes from ``start`` up to, not including, ``stop``; None where the server says anything else.

        Raises Unavailable where it does not answer in time.
        """
        request = self._transport.head_of("GET", path, {"Range": f"bytes={start}-{stop - 1}"})
        try:
            while True:
                is_used, connection = self._connection()
                try:
                    return self._ask(connection, request, start, stop)
                except _Stale:
                    if not is_used:
                        return None
        except (TimeoutError, BlockingIOError) as error:
            raise self._transport.failed(TimeoutError(str(error))) from None
        except (OSError, HTTPError, ValueError):
            # Said better, and tried again where that makes sense, by the transport.
            return None

    def _ask(self, connection: socket.socket, request: bytes, start: int, stop: int) -> bytes | bytearray | None:
        data = None
        try:
            try:
                connection.sendall(request)
                head, body = _head_of(connection)
            except (ConnectionError, ssl.SSLEOFError):
                raise _Stale from None
            if _is_expected(head, start, stop):
                data = body if len(body) == stop - start else _body_of(connection, body, stop - start)
            return data
        finally:
            # Only behind a whole answer does the next one begin.
            if data is not None and len(self._idle) < _MOST_IDLE and not self._is_closed:
                self._idle.append(connection)
            else:
                connection.close()

    def _connection(self) -> tuple[bool, socket.socket]:
        try:
            return True, self._idle.pop()
        except IndexError:
            connection = self._transport.connect()
        if not isinstance(connection, ssl.SSLSocket):
            # The kernel keeps the time, so that one call takes all that is on its way (socket(7), SO_RCVTIMEO).
            seconds = struct.pack("ll", int(self._timeout), int(self._timeout % 1 * 1_000_000))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
            connection.settimeout(None)
        return False, connection


def _head_of(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read an answer's head, and what comes with it of its body. Raises ConnectionError where there is none."""
    data = b""
    while True:
        piece = connection.recv(_FIRST)
        if not piece:
            raise ConnectionResetError
        data = data + piece if data else piece
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            return head + b"\r\n", body
        if len(data) > _LARGEST_HEAD:
            raise ValueError


def _is_expected(head: bytes, start: int, stop: int) -> bool:
    given, length = _RANGE.search(head), _LENGTH.search(head)
    return (
        head.startswith(b"HTTP/1.1 206 ")
        and given is not None
        and (int(given[1]), int(given[2])) == (start, stop - 1)
        and length is not None
        and int(length[1]) == stop - start
        and not _ENDS.search(head)
    )


def _body_of(connection: socket.socket, begun: bytes, size: int) -> bytearray | None:
    """Read the rest of a body; None where it ends too early, or too late."""
    if len(begun) > size:
        return None
    data = bytearray(size)
    view = memoryview(data)
    view[: len(begun)] = begun
    position = len(begun)
    flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
    while position < size:
        count = connection.recv_into(view[position:], 0, flags)
        if not count:
            return None
        position += count
    return data
