# SPDX-License-Identifier: Apache-2.0
"""One connection to a server that stays the same from one call to the next, and takes data straight from a file.

Answers for calls whose data the kernel sends from the page cache (sendfile(2)), where there is no TLS, in one go:
nothing of them passes through the interpreter, and no other thread waits for it. Asks nothing twice, and listens to no
refusal before everything is sent: for that there is `glancefs.transport`.

Threading: belongs to one thread at a time; `cut` may come from any.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

from glancefs.errors import GlancefsError
from glancefs.remote.calls import PREFIX, WITH_DATA
from glancefs.transfer import BLOCK_SIZE
from glancefs.transport import Transport, error_of

Stretch = tuple[int, int, int]
"""The descriptor of a file, where a part of it begins, and where it ends."""


class Line:
    """A connection to the server of a transport. Raises urllib3's HTTPError, OSError where there can't be one."""

    def __init__(self, *, transport: Transport, timeout: float) -> None:
        """``timeout`` is in seconds, for every silence."""
        self._transport: Final = transport
        self._timeout: Final = timeout
        self._socket: Final = transport.connect()
        # The kernel keeps the time of what is sent, so that one call sends all of it (socket(7), SO_SNDTIMEO).
        seconds = struct.pack("ll", int(timeout), int(timeout % 1 * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        self.is_usable = True
        """Whether the next call can be made: the last one came to its end."""
        self._is_sending = False

    def post(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        data: Stretch | None = None,
        headers: Mapping[str, str] | None = None,
        answer_within: float | None = None,
    ) -> Any:  # noqa: ANN401 - the answer is the call's
        """Make a call, with a part of a file behind its arguments, and give its answer.

        Raises what the server says, and Unavailable where it says nothing; then the line is of no more use.
        """
        descriptor, start, stop = data or (-1, 0, 0)
        line = json.dumps(arguments).encode() + b"\n"
        kind = "application/octet-stream" if name in WITH_DATA else "application/json"
        said = {"Content-Type": kind, "Content-Length": str(len(line) + stop - start), **(headers or {})}
        head = self._transport.head_of("POST", PREFIX + name, said)
        self.is_usable = False
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(head + line)
            self._is_sending = stop > start
            self._send(descriptor, start, stop)
            self._is_sending = False
            self._socket.settimeout(answer_within or self._timeout)
            status, body, self.is_usable = _answer_of(self._socket)
        except BlockingIOError as error:
            # What the kernel says when its time is up.
            raise self._failed(TimeoutError(str(error))) from None
        except (OSError, HTTPException, ValueError) as error:
            raise self._failed(error) from None
        if status != HTTPStatus.OK:
            raise error_of(status, body)
        try:
            return json.loads(body)["answer"]
        except (ValueError, KeyError, TypeError):
            raise self._failed(HTTPException("an answer that is none")) from None

    def cut(self) -> None:
        """Have data that are being sent break off, and with them the connection.

        A call that is only to be answered goes on: what the server makes of it is known then.
        """
        if self._is_sending:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def _send(self, descriptor: int, start: int, stop: int) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            room = memoryview(bytearray(min(BLOCK_SIZE, stop - start)))
            while start < stop:
                count = os.preadv(descriptor, [room[: stop - start]], start)
                _check(count)
                self._socket.sendall(room[:count])
                start += count
            return
        self._socket.settimeout(None)
        while start < stop:
            count = os.sendfile(self._socket.fileno(), descriptor, start, stop - start)
            _check(count)
            start += count

    def _failed(self, error: Exception) -> GlancefsError:
        failure = self._transport.failed(error)
        failure.__cause__ = error
        return failure


def _check(count: int) -> None:
    if not count:
        raise OSError("the file shrank while it was sent")


def _answer_of(connection: socket.socket) -> tuple[int, bytes, bool]:
    """Read an answer: its status, its body, and whether another one can follow."""
    response = HTTPResponse(connection, method="POST")
    try:
        response.begin()
        return response.status, response.read(), not response.will_close
    finally:
        response.close()
