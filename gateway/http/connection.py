# SPDX-License-Identifier: Apache-2.0
"""One client's connection, from the accept to the close.

Answers for the steps between requests: TLS handshake, collecting the head (and a small body) without holding a
thread, handing the request to the application, going on or ending. A step goes as far as it can without waiting for
the client and then parks; the selector wakes it for the next. Does not decide what a head means or how an answer looks.

Threading: at any moment either one worker thread or the selector thread owns a connection; `cut` may come from any.
"""

from __future__ import annotations

import enum
import socket
import ssl
import time
from typing import TYPE_CHECKING

from cheroot.server import HTTPConnection

from gateway.http.admission import ClientGone, Ticket
from gateway.http.body import Body, ChunkedBody, KnownBody
from gateway.http.exchange import Chunk, Exchange
from gateway.http.head import Head
from gateway.http.refusal import PROBLEM_TYPE, Refusal, no_place, problem, status_line
from gateway.http.waiting import Bell
from gateway.http.wire import WAIT, Wire

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from gateway.http.engine import Engine

_EMPTY_LINE = b"\r\n\r\n"
_TLS_HANDSHAKE = b"\x16"
_PIPELINED = 16
"""How many requests of one connection are answered before others get their turn."""


class Stage(enum.Enum):
    """What a parked connection waits for."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    NEWS = "news"
    LINGER = "linger"


class Connection(HTTPConnection):
    """A connection of the engine. See the module's text for who may touch it when."""

    def __init__(self, *, engine: Engine, sock: socket.socket, address: object) -> None:
        # The stock constructor is left out: it wraps the socket in files written in Python, which halves the speed.
        self.engine = engine
        self.server = engine
        self.wire = Wire(sock)
        self.remote_addr, self.remote_port = address[:2] if isinstance(address, tuple) else ("", 0)
        self.client = f"{self.remote_addr}:{self.remote_port}" if self.remote_addr else "unix"
        self.environ = engine.environ_for(self)
        self.stage = Stage.HANDSHAKE if self.wire.tls else Stage.IDLE
        self.parked = False
        self.deadline = time.monotonic() + engine.limits.head_timeout
        self.expired = False
        """The deadline passed while the connection was parked."""
        self.writable_wanted = False
        """TLS needs to send before it can go on."""
        self._searched = 0
        self._blank_skipped = False
        self._head: Head | None = None
        self._patience = 0.0
        self._lingered = 0
        self._unread = False
        self.rung = False
        """Somebody rang the bell of the request that waits."""
        self.waiting_turn = 0
        """Which waiting of this connection goes on; 0 where none does."""
        self._turns = 0
        self._wait_until: float | None = None

    # -- waiting for news

    def may_wait(self, head: Head) -> bool:
        """Whether a request may wait: it has no body, and its time is not up."""
        return not head.chunked and not head.length and self._wait_until != 0

    def begin_waiting(self, seconds: float) -> Bell:
        """Say that the request which is being answered waits for news, so long at the most in all."""
        if self._wait_until is None:
            self._wait_until = time.monotonic() + seconds
        self._turns += 1
        self.waiting_turn = self._turns
        self.rung = False
        return Bell(self, turn=self._turns)

    # -- steps, in a worker thread

    def communicate(self) -> bool:
        """Go on as far as possible without waiting for the client. Gives whether to park; otherwise it is over."""
        try:
            stage = self._handshake() if self.stage is Stage.HANDSHAKE else self.stage
            if stage is Stage.LINGER:
                return self._start_linger()
            return stage is Stage.HANDSHAKE or self._requests()
        except ClientGone as gone:
            self.engine.log.debug("%s left: %s", self.client, gone)
        except Exception:
            self.engine.log.exception("a connection of %s failed", self.client)
        return False

    def _handshake(self) -> Stage:
        """Go on with the TLS handshake. Gives the stage it led to; raises ClientGone when it failed."""
        sock = self.wire.sock
        if self.expired or not isinstance(sock, ssl.SSLSocket):
            raise ClientGone("the TLS handshake took too long")
        try:
            if self._searched == 0:
                self._searched = 1
                first = socket.socket.recv(sock, 1, socket.MSG_PEEK)
                if first and first != _TLS_HANDSHAKE:
                    _answer_plain_http(sock)
                    return Stage.LINGER
            sock.do_handshake()
        except (ssl.SSLWantReadError, BlockingIOError):
            return Stage.HANDSHAKE
        except ssl.SSLWantWriteError:
            self.writable_wanted = True
            return Stage.HANDSHAKE
        except (OSError, ValueError) as error:
            raise ClientGone(f"the TLS handshake failed: {error}") from error
        self.environ = self.engine.environ_for(self)
        self._go_idle()
        self.deadline = time.monotonic() + self.engine.limits.head_timeout
        return self.stage

    def _requests(self) -> bool:
        for _ in range(_PIPELINED):
            try:
                ready = self._collect()
            except Refusal as refusal:
                return self._refuse(refusal)
            if not ready:
                return not self.wire.ended
            keep = self._serve()
            waits = self._head is not None
            if not keep and not waits and self._unread:
                return self._start_linger()
            if waits or not keep or not self.engine.keeps_alive:
                return waits
            self._go_idle()
            if not self.wire.ahead() and not self.wire.undecrypted():
                return True
        return True

    def _collect(self) -> bool:
        """Receive until the head, and a small body, are there. False when the client has to go on first."""
        while True:
            if self._head is None:
                self._find_head()
            if self._head is not None and self._body_ready(self._head):
                return True
            if self.expired:
                raise Refusal(408, "The request did not come in time.")
            count = self.wire.fill()
            if count > 0:
                continue
            if count == WAIT:
                return False
            if self._head is not None:
                return True
            if self.wire.ahead():
                raise Refusal(400, "The request ended in the middle of its headers.")
            return False

    def _find_head(self) -> None:
        wire = self.wire
        if self.stage is Stage.IDLE and wire.ahead():
            self.stage = Stage.HEAD
            self.deadline = time.monotonic() + self.engine.limits.head_timeout
        if not self._blank_skipped and wire.buffer.startswith(b"\r\n", wire.position):
            # RFC 9112, section 2.2: an empty line may come first.
            self._blank_skipped = True
            wire.position += 2
            self._searched = 0
        end = wire.buffer.find(_EMPTY_LINE, wire.position + self._searched)
        if end < 0:
            self._searched = max(0, wire.ahead() - 3)
            if wire.ahead():
                self.engine.heads.check_incomplete(wire.buffer[wire.position :])
            return
        self._searched = 0
        data = wire.buffer[wire.position : end]
        wire.position = end + len(_EMPTY_LINE)
        self._head = self.engine.heads.read(data)

    def _body_ready(self, head: Head) -> bool:
        """Whether the request can go to the application: with what it waits for here, or because it won't wait here."""
        limits = self.engine.limits
        if head.chunked or head.expects or head.length > limits.small_body or head.length <= self.wire.ahead():
            return True
        if self.stage is not Stage.BODY:
            self.stage = Stage.BODY
            self.deadline = time.monotonic() + limits.small_body_patience
        return self.expired

    def _serve(self) -> bool:
        head = self._head
        assert head is not None  # noqa: S101  (told by _collect)
        self._head = None
        if self.stage is Stage.NEWS and (self.expired or not self.rung or time.monotonic() >= (self._wait_until or 0)):
            # Its time is up, or the client has gone on: what there is goes out now.
            self._wait_until = 0
        self.waiting_turn = 0
        self.expired = False
        upload = Ticket(self.engine.uploads)
        body = self._make_body(head, upload)
        exchange = Exchange(connection=self, head=head, body=body, upload=upload)
        if (head.chunked or head.length > self.wire.ahead()) and not upload.claim():
            keep = exchange.refuse(no_place("uploads", retry_after=self.engine.limits.retry_after))
        elif head.target == "*":
            keep = exchange.run(_answer_options)
        else:
            keep = exchange.run(self.engine.app)
        if exchange.is_postponed:
            self._head = head
            self.stage = Stage.NEWS
            self.deadline = self._wait_until or 0
            return True
        self._wait_until = None
        self.waiting_turn = 0
        self.rung = False
        self._unread = not body.finished
        return keep

    def _make_body(self, head: Head, upload: Ticket) -> Body:
        pace = self.engine.body_pace(upload)
        if head.chunked:
            return ChunkedBody(wire=self.wire, pace=pace, expects=head.expects)
        if head.length:
            return KnownBody(wire=self.wire, pace=pace, expects=head.expects, length=head.length)
        return Body(wire=self.wire, pace=pace, expects=False)

    def _refuse(self, refusal: Refusal) -> bool:
        head = Head(
            method="",
            target="",
            path="",
            query="",
            protocol="HTTP/1.1",
            fields=(),
            environ={},
            length=0,
            chunked=False,
            expects=False,
            keep_alive=False,
        )
        ticket = Ticket(self.engine.uploads)
        body = Body(wire=self.wire, pace=self.engine.body_pace(ticket), expects=False)
        Exchange(connection=self, head=head, body=body, upload=ticket).refuse(refusal)
        return self._start_linger()

    def _go_idle(self) -> None:
        self.stage = Stage.IDLE
        self.expired = False
        self._searched = 0
        self._blank_skipped = False
        self.wire.forget_taken()
        self.deadline = time.monotonic() + self.engine.limits.idle_timeout

    def _start_linger(self) -> bool:
        """End our side, and go on taking what the client sends, so that a reset does not overtake the answer."""
        if self.wire.ended:
            return False
        self.wire.finish_sending()
        self.stage = Stage.LINGER
        self.expired = False
        self.deadline = time.monotonic() + self.engine.limits.linger
        return True

    # -- in the selector thread

    def has_data(self) -> bool:
        """Whether a step can go on without the selector seeing anything new."""
        if self.stage is Stage.LINGER:
            return False
        return self.wire.undecrypted() or (self.stage is Stage.IDLE and self.wire.ahead() > 0)

    def linger_on(self) -> bool:
        """Throw away what a refused client still sends. False when it is over."""
        while self._lingered <= self.engine.limits.linger_bytes:
            count = self.wire.discard()
            if count == WAIT:
                return True
            if not count:
                return False
            self._lingered += count
        return False

    # -- the end

    def cut(self) -> None:
        """End the connection under whoever uses it."""
        self.wire.cut()

    def close(self) -> None:
        """Close the connection and let the engine forget it."""
        self.engine.forget(self)
        self.wire.close()


def _answer_plain_http(sock: ssl.SSLSocket) -> None:
    detail = problem(400, "This port speaks HTTPS; the request came as plain HTTP.")
    head = (
        f"HTTP/1.1 {status_line(400)}\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(detail)}\r\nConnection: close\r\n\r\n"
    )
    socket.socket.send(sock, head.encode() + detail)


def _answer_options(_environ: WSGIEnvironment, start_response: StartResponse) -> list[Chunk]:
    """Answer `OPTIONS *` (RFC 9110, section 9.3.7: a "ping" that concerns no resource)."""
    start_response("204 No Content", [])
    return []
