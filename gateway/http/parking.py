# SPDX-License-Identifier: Apache-2.0
"""Where connections wait for their clients: the selector thread.

Answers for accepting, for waking connections when something comes, and for deadlines of those that wait. A waiting
connection costs a dictionary entry and no thread. Does not read requests.

Threading: `run` and what it calls belong to the selector thread; `put`, `forget`, `wake`, `stop` and
`everyone` may be called from any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from cheroot.connections import ConnectionManager

from gateway.http.balance import Share
from gateway.http.connection import Connection, Stage
from gateway.http.pool import STALL

if TYPE_CHECKING:
    from gateway.http.engine import Engine

_TICK = 0.25
_IDLE_TICK = 5.0
_ACCEPTS = 64
"""How many connections are accepted before those that are open get their turn."""
_EVENTS = 256
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FULL_PAUSE = 0.05
_ONCE_IN = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_ONCE_OUT = select.EPOLLOUT | select.EPOLLONESHOT


class Parking(ConnectionManager):
    """cheroot's connection manager on an epoll of its own: one system call to park, none to wake."""

    def __init__(self, *, engine: Engine, listener: socket.socket, share: Share | None) -> None:
        self._engine = engine
        self._share = share
        self._listens_again = 0.0
        """When to look at the listening socket again; 0 while it is looked at."""
        self._listener = listener
        self._listener_fd = listener.fileno()
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._connections: dict[int, Connection] = {}
        self._accepting = True
        self._ended = False
        self._backlog = False
        self._rung: deque[Connection] = deque()
        self._swept = 0.0
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._epoll.register(self._listener_fd, select.EPOLLIN)

    # -- from any thread

    def put(self, conn: Connection) -> None:
        """Let a connection wait until its client goes on."""
        if conn.has_data():
            self._engine.process_conn(conn)
            return
        conn.parked = True
        if conn.rung:
            # The bell rang before the connection was here.
            self.ring(conn)
        events = _ONCE_OUT if conn.writable_wanted else _ONCE_IN
        conn.writable_wanted = False
        try:
            self._epoll.modify(conn.wire.fd, events)
        except OSError:
            conn.close()

    def forget(self, conn: Connection) -> None:
        """Take note that a connection is about to be closed."""
        if self._connections.get(conn.wire.fd) is conn:
            del self._connections[conn.wire.fd]
            self._report()

    def wake(self) -> None:
        """Make the selector thread look around."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)

    def ring(self, conn: Connection) -> None:
        """Have a connection that waits for news answered."""
        self._rung.append(conn)
        self.wake()

    def stop_accepting(self) -> None:
        """Refuse new connections, and end those that wait without a request."""
        self._accepting = False
        if self._share is not None:
            self._share.leave()
        self.wake()

    def stop(self) -> None:
        """Make `run` return soon."""
        self._ended = True
        self.wake()

    def everyone(self) -> list[Connection]:
        """Give all open connections."""
        return list(self._connections.values())

    @property
    def can_add_keepalive_connection(self) -> bool:
        """Whether a connection may stay open; the limit is kept at the accept instead."""
        return self._accepting

    # -- the selector thread

    def run(self, expiration_interval: float = _TICK) -> None:
        """Wake connections until `stop` is called."""
        self._report()
        self._swept = time.monotonic()
        while not self._ended:
            try:
                self._round(expiration_interval)
            except Exception:
                self._engine.log.exception("the selector stumbled")
                time.sleep(_FULL_PAUSE)

    def _round(self, interval: float) -> None:
        """Wait for what comes first, and do what is due."""
        tick = interval if self._connections else _IDLE_TICK
        soon = self._backlog or self._listens_again
        for fd, _ in self._epoll.poll(STALL if soon else tick, _EVENTS):
            if fd == self._listener_fd:
                self._accept()
            elif fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)
                self._answer_rung()
                self._end_listening()
            else:
                self._ready(fd)
        now = time.monotonic()
        self._backlog = self._engine.requests.tend(now)
        if self._listens_again and now >= self._listens_again:
            self._listen(again=0.0)
        if now - self._swept >= interval:
            self._swept = now
            self._expire(now)

    def _ready(self, fd: int) -> None:
        conn = self._connections.get(fd)
        if conn is None or not conn.parked:
            return
        conn.parked = False
        if conn.stage is not Stage.LINGER:
            # One that drips is never found waiting by the sweep, so its deadline is looked at here too.
            conn.expired = conn.stage is not Stage.IDLE and conn.deadline <= time.monotonic()
            self._engine.process_conn(conn)
        elif conn.deadline > time.monotonic() and conn.linger_on():
            self.put(conn)
        else:
            conn.close()

    def _answer_rung(self) -> None:
        while self._rung:
            conn = self._rung.popleft()
            # One that is not parked yet rings again when it is.
            if conn.parked and conn.rung and conn.stage is Stage.NEWS:
                conn.parked = False
                self._engine.process_conn(conn)

    def _expire(self, now: float) -> None:
        for conn in list(self._connections.values()):
            waits_for_nobody = self._accepting or conn.stage not in {Stage.IDLE, Stage.NEWS}
            if not conn.parked or (conn.deadline > now and waits_for_nobody):
                continue
            conn.parked = False
            if conn.stage in {Stage.IDLE, Stage.LINGER}:
                conn.close()
            else:
                conn.expired = True
                self._engine.process_conn(conn)

    def _end_listening(self) -> None:
        if self._accepting or self._ended:
            return
        if self._listener_fd >= 0:
            with contextlib.suppress(OSError):
                self._epoll.unregister(self._listener_fd)
            self._listener_fd = -1
            self._listener.close()
        self._expire(time.monotonic())

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            if self._share is not None and not self._share.may_take(time.monotonic()):
                self._listen(again=time.monotonic() + STALL)
                return
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    self._make_room()
                    time.sleep(_FULL_PAUSE)
                return
            if len(self._connections) >= self._engine.limits.max_connections and not self._make_room():
                sock.close()
                continue
            self._welcome(sock, address)

    def _listen(self, *, again: float) -> None:
        """Leave the listening socket to other workers until then; 0 looks at it."""
        self._listens_again = again
        if self._listener_fd >= 0:
            self._epoll.modify(self._listener_fd, 0 if again else select.EPOLLIN)

    def _report(self) -> None:
        if self._share is not None and self._accepting:
            self._share.report(len(self._connections))

    def _welcome(self, sock: socket.socket, address: object) -> None:
        sock.settimeout(0)
        if self._engine.ssl_adapter is not None:
            sock, _ = self._engine.ssl_adapter.wrap(sock)
        conn = Connection(engine=self._engine, sock=sock, address=address)
        conn.parked = True
        self._connections[conn.wire.fd] = conn
        self._report()
        self._epoll.register(conn.wire.fd, _ONCE_IN)

    def _make_room(self) -> bool:
        """Close one that waits, rather without a request than amid one, and the oldest. False when none waits."""
        waiting = [conn for conn in self._connections.values() if conn.parked]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda conn: (conn.stage is not Stage.IDLE, conn.deadline))
        oldest.parked = False
        oldest.close()
        return True

    def close(self) -> None:
        """Close everything; `run` has returned."""
        for conn in self.everyone():
            conn.close()
        self._epoll.close()
        os.close(self._wake_fd)
        if self._listener_fd >= 0:
            self._listener_fd = -1
            self._listener.close()
