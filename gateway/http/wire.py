# SPDX-License-Identifier: Apache-2.0
"""The bytes of one connection: a non-blocking socket, plain or TLS, and the little that was received ahead.

Answers for receiving, sending, sendfile(2) and counting. Waits only by the pace it is handed, so no method blocks
longer than the pace allows. Does not know HTTP.

Threading: used by one thread at a time, except `cut`, which any thread may call.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct

from gateway.http.admission import ClientGone, Pace
from gateway.http.sendfile import FileShrank, FileSlice

RECEIVE = 32 * 1024
"""How much is received ahead: a whole request head with a small body in one call, little enough to be cheap."""

SENDFILE_MOST = 0x7FFFF000
"""The most that one sendfile(2) moves (its man page)."""

WAIT = -1
"""What `fill` says when nothing is there yet."""

_AGAIN_IN = (BlockingIOError, ssl.SSLWantReadError)
_AGAIN_OUT = (BlockingIOError, ssl.SSLWantWriteError)
_RESET = struct.pack("ii", 1, 0)


class Wire:
    """One connection's socket with its received-ahead bytes `buffer[position:]`."""

    __slots__ = ("_poller", "_polling", "buffer", "ended", "fd", "position", "received", "sent", "sock", "tls")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.buffer = b""
        self.position = 0
        self.ended = False
        """The client sends nothing more."""
        self.received = 0
        self.sent = 0
        self._poller: select.poll | None = None
        self._polling = 0

    # -- receiving

    def ahead(self) -> int:
        """How many bytes were received and not yet taken."""
        return len(self.buffer) - self.position

    def undecrypted(self) -> bool:
        """Whether TLS holds bytes that the selector can't see."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def fill(self) -> int:
        """Receive ahead what is there. Gives the count, 0 at the client's end, or WAIT when nothing is there yet."""
        try:
            data = self.sock.recv(RECEIVE)
        except _AGAIN_IN:
            return WAIT
        except ssl.SSLWantWriteError:  # TLS 1.2 renegotiating; the poll for reading is enough to make it go on
            return WAIT
        except (OSError, ValueError) as error:
            raise ClientGone(str(error)) from error
        if not data:
            self.ended = True
            return 0
        self.received += len(data)
        if self.position == len(self.buffer):
            self.buffer = data
        else:
            self.buffer = self.buffer[self.position :] + data
        self.position = 0
        return len(data)

    def fill_patiently(self, pace: Pace) -> int:
        """Receive ahead, waiting for the client as the pace allows; 0 at the client's end."""
        while (count := self.fill()) == WAIT:
            pace.wait(self._readable)
        pace.moved(count)
        return count

    def take(self, count: int) -> bytes:
        """Take exactly `count` bytes of what was received ahead."""
        data = self.buffer[self.position : self.position + count]
        self.position += count
        return data

    def forget_taken(self) -> None:
        """Let go of what was taken, so that a connection that idles holds nothing."""
        if self.position == len(self.buffer):
            self.buffer = b""
            self.position = 0

    def receive_into(self, view: memoryview, pace: Pace) -> int:
        """Put the next bytes into the view, past the buffer where that saves a copy. Gives the count, 0 at the end."""
        if not self.ahead():
            if len(view) >= RECEIVE:
                return self._receive_past(view, pace)
            if not self.fill_patiently(pace):
                return 0
        count = min(len(view), self.ahead())
        view[:count] = memoryview(self.buffer)[self.position : self.position + count]
        self.position += count
        return count

    def _receive_past(self, view: memoryview, pace: Pace) -> int:
        while True:
            try:
                count = self.sock.recv_into(view)
            except _AGAIN_IN:
                pace.wait(self._readable)
                continue
            except (OSError, ValueError) as error:
                raise ClientGone(str(error)) from error
            self.received += count
            self.ended = not count
            pace.moved(count)
            return count

    def receive_line(self, limit: int, pace: Pace) -> bytes | None:
        """Take a line without its CRLF. None when the client ended first. Raises ValueError beyond `limit` bytes."""
        while True:
            end = self.buffer.find(b"\r\n", self.position)
            if end >= 0:
                line = self.buffer[self.position : end]
                if len(line) > limit:
                    break
                self.position = end + 2
                return line
            if self.ahead() > limit + 1:
                break
            if not self.fill_patiently(pace):
                return None
        raise ValueError("the line is too long")

    # -- sending

    def send(self, data: bytes, pace: Pace, *, more: bool = False) -> None:
        """Send all of it; `more` says that something follows at once, which saves a packet."""
        flags = socket.MSG_MORE if more and not self.tls else 0
        view = memoryview(data)
        while view:
            try:
                count = self.sock.send(view, flags)
            except _AGAIN_OUT:
                pace.wait(self._writable)
                continue
            except ssl.SSLWantReadError:
                pace.wait(self._readable)
                continue
            except (OSError, ValueError) as error:
                raise ClientGone(str(error)) from error
            self.sent += count
            pace.moved(count)
            view = view[count:]

    def send_file(self, piece: FileSlice, pace: Pace) -> None:
        """Send a stretch of a file. Raises FileShrank when the file ends before the stretch does."""
        if self.tls:
            for block in piece:
                self.send(block, pace)
            return
        source = piece.file.fileno()
        position = piece.start
        while position < piece.stop:
            try:
                count = os.sendfile(self.fd, source, position, min(piece.stop - position, SENDFILE_MOST))
            except BlockingIOError:
                pace.wait(self._writable)
                continue
            except OSError as error:
                raise ClientGone(str(error)) from error
            if not count:
                raise FileShrank(f"the file ended {piece.stop - position} bytes early")
            self.sent += count
            pace.moved(count)
            position += count

    def try_send(self, data: bytes) -> None:
        """Send what goes at once, for courtesies whose loss does no harm."""
        with contextlib.suppress(OSError, ValueError):
            self.sock.send(data)

    # -- waiting

    def _readable(self, seconds: float) -> bool:
        return self._ready(select.POLLIN, seconds)

    def _writable(self, seconds: float) -> bool:
        return self._ready(select.POLLOUT, seconds)

    def _ready(self, event: int, seconds: float) -> bool:
        if self._poller is None:
            self._poller = select.poll()
        if self._polling != event:
            self._poller.register(self.fd, event)
            self._polling = event
        return bool(self._poller.poll(seconds * 1000))

    def readable(self, seconds: float) -> bool:
        """Whether something can be received, waiting at most that long."""
        return self._ready(select.POLLIN, seconds)

    # -- ending

    def finish_sending(self) -> None:
        """Tell the client that nothing more comes, while what it still sends is taken."""
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.unwrap()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def discard(self) -> int:
        """Throw away what the client still sends, without decrypting it. Gives the count, 0 at the end, or WAIT."""
        try:
            return len(socket.socket.recv(self.sock, 4 * RECEIVE))
        except BlockingIOError:
            return WAIT
        except OSError:
            return 0

    def cut(self) -> None:
        """End both directions with a reset, which wakes whoever waits for this client and tells it of the failure."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        with contextlib.suppress(OSError):
            self.sock.close()
