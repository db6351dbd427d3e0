# SPDX-License-Identifier: Apache-2.0
"""One process's HTTP server: cheroot's server with the parts of this package in place of its own.

Answers for putting the parts together, for starting them and for a stop that is bounded: what is under way is
finished within `shutdown_timeout`, the rest is cut, and an upload that is cut fails. Knows no signals and no other
processes.

Threading: `start` and `stop` are called by one controlling thread; everything else as its own text says.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

from cheroot.server import HTTPServer

from gateway.http.access import Journal, Observer
from gateway.http.admission import Pace, Places, Ticket
from gateway.http.balance import Share
from gateway.http.head import HeadReader
from gateway.http.limits import Limits
from gateway.http.listen import Address
from gateway.http.parking import Parking
from gateway.http.pool import Pool
from gateway.http.tls import Tls
from glancefs.cores import Cores
from glancefs.reporting import Sample, Transfer

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from gateway.http.connection import Connection
    from gateway.http.exchange import App, Exchange

_POLL = 0.02
_LAST_WAIT = 2.0
_TOLD = 100
"""How many transfers are kept that have ended, for who asks for them."""


class Engine(HTTPServer):
    """Serves one application at one listening socket."""

    def __init__(
        self,
        *,
        app: App,
        listener: socket.socket,
        address: Address,
        limits: Limits,
        tls: Tls | None = None,
        observer: Observer | None = None,
        share: Share | None = None,
    ) -> None:
        super().__init__(bind_addr=address.path or (address.host, address.port), gateway=None, server_name="glancefs")
        self.app = app
        self.limits = limits
        self.ssl_adapter = tls
        self.log = logging.getLogger("glancefs.gateway")
        self.journal = Journal(observer=observer)
        self.heads = HeadReader(limits=limits)
        self.keeps_alive = True
        self.server_line = "Server: glancefs\r\n"
        self.requests = Pool(engine=self, most=limits.threads, cores=Cores(neighbours=share))
        self.uploads = Places(total=limits.max_uploads, on_taken=self.requests.step_aside)
        self.downloads = Places(total=limits.max_downloads, on_taken=self.requests.step_aside)
        self.parking = Parking(engine=self, listener=listener, share=share)
        self._environ = _base_environ(address, multiprocess=share is not None)
        self._date = (0, "")
        self.exchanges: set[Exchange] = set()
        """The requests that an application is answering."""
        self._ended: deque[Transfer] = deque(maxlen=_TOLD)
        self._selector: threading.Thread | None = None

    # -- for the parts

    def environ_for(self, conn: Connection) -> WSGIEnvironment:
        """Give the part of the environ that all requests of a connection share."""
        environ = self._environ.copy()
        environ["REMOTE_ADDR"] = conn.remote_addr
        environ["REMOTE_PORT"] = str(conn.remote_port)
        if isinstance(self.ssl_adapter, Tls) and isinstance(conn.wire.sock, ssl.SSLSocket):
            environ.update(self.ssl_adapter.get_environ(conn.wire.sock))
        return environ

    def body_pace(self, ticket: Ticket) -> Pace:
        """Give the patience with which a request's body is waited for."""
        limits = self.limits
        return Pace(
            ticket=ticket,
            idle=limits.body_timeout,
            rate=limits.min_rate,
            grace=limits.min_rate_grace,
            patience=limits.slotless_patience,
        )

    def response_pace(self, ticket: Ticket) -> Pace:
        """Give the patience with which a response is sent."""
        limits = self.limits
        return Pace(
            ticket=ticket,
            idle=limits.write_timeout,
            rate=limits.min_rate,
            grace=limits.min_rate_grace,
            patience=limits.slotless_patience,
        )

    def date_line(self) -> str:
        """Give the Date header of this second (RFC 9110, section 6.6.1)."""
        second = int(time.time())
        known, line = self._date
        if known != second:
            line = f"Date: {formatdate(second, usegmt=True)}\r\n"
            self._date = (second, line)
        return line

    def process_conn(self, conn: Connection) -> None:
        """Have a thread take a connection's next step."""
        self.requests.put(conn)

    def put_conn(self, conn: Connection) -> None:
        """Let a connection wait for its client."""
        self.parking.put(conn)

    def forget(self, conn: Connection) -> None:
        """Take note that a connection is about to be closed."""
        self.parking.forget(conn)

    def forget_exchange(self, exchange: Exchange) -> None:
        """Take note that a request is answered, as well as it goes."""
        self.exchanges.discard(exchange)
        transfer = exchange.transfer()
        if transfer is not None:
            self._ended.append(replace(transfer, outcome="done" if exchange.succeeded else "failed"))

    def sample(self) -> Sample:
        """Give what is on its way, and what has ended since this was asked before; for one asker."""
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        # Copied in one step: other threads add and remove.
        under_way = [exchange.transfer() for exchange in list(self.exchanges)]
        return Sample(under_way=[one for one in under_way if one is not None], ended=ended)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002  (as cheroot calls it)
        """Log what cheroot's own parts have to say."""
        self.log.log(level, "%s", msg, exc_info=traceback)

    def clear_stats(self) -> None:
        """Keep no statistics; cheroot would hang them on the logging module."""
        self.stats = {"Enabled": False, "Worker Threads": {}}

    # -- start and stop

    def start(self) -> None:
        """Start serving, in threads of its own."""
        self.requests.start()
        self.ready = True
        self._selector = threading.Thread(target=self.parking.run, name="selector", daemon=True)
        self._selector.start()

    def stop(self, *, timeout: float = 0.0) -> None:
        """Refuse new connections, finish what is under way for at most `timeout` seconds, cut the rest, and end."""
        if not self.ready:
            return
        self.ready = False
        self.keeps_alive = False
        self.parking.stop_accepting()
        if not self._wait_until_empty(timeout):
            rest = self.parking.everyone()
            self.log.warning("cutting %d connections that did not end in %g s", len(rest), timeout)
            for conn in rest:
                conn.cut()
            if not self._wait_until_empty(_LAST_WAIT):
                self.log.error("%d requests did not end although they were cut", len(self.parking.everyone()))
        self.parking.stop()
        if self._selector is not None:
            self._selector.join()
        self.requests.stop()
        self.parking.close()

    def _wait_until_empty(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.parking.everyone():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True


def _base_environ(address: Address, *, multiprocess: bool) -> WSGIEnvironment:
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": address.host or "localhost",
        "SERVER_PORT": str(address.port),
        "SERVER_SOFTWARE": "glancefs",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
    }
