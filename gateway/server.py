# SPDX-License-Identifier: Apache-2.0
"""The server: where it listens, in how many processes, and how it is stopped.

Answers for `Server`, which runs a WSGI application (see `gateway.http` for what it promises to it) until a
signal comes. Does not know what the application does.

Threading: a `Server` is used by the thread that made it; `stop` may be called from any.
"""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.http.access import Observer
from gateway.http.balance import Share
from gateway.http.engine import Engine
from gateway.http.limits import Limits
from gateway.http.listen import Address, bind
from gateway.http.signals import StopSignals
from gateway.http.tls import Tls, load_tls
from gateway.http.workers import Supervisor
from glancefs.errors import ConfigError
from glancefs.reporting import Sample

if TYPE_CHECKING:
    from gateway.http.exchange import App

_DEFAULT_SHUTDOWN = 30.0
_SWITCH_INTERVAL = 0.0005
"""For how long, in seconds, a thread may compute while others want to. With Python's 5 ms a few uploads in tiny chunks
make every other request wait for a quarter of a second; this costs nothing that could be measured."""


class Server:
    """A WSGI application at an address.

    `app_factory` is called once in each process that answers requests, after the fork; `on_exit` with its result when
    that process has answered its last. `observer` is called for each finished request (each process has its own copy).
    `ready` is called with the URL once connections are accepted, `watch` in each process that answers, with what tells
    the data on their way there (`Engine.sample`). `shutdown_timeout` is how long, in seconds, requests
    under way may go on after a signal.
    Raises ConfigError from `run` and `start` when an address or a certificate can't be used.
    """

    def __init__(
        self,
        *,
        app_factory: Callable[[], App],
        listen: str,
        workers: int = 1,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        limits: Limits | None = None,
        shutdown_timeout: float = _DEFAULT_SHUTDOWN,
        observer: Observer | None = None,
        ready: Callable[[str], None] | None = None,
        watch: Callable[[Callable[[], Sample]], None] | None = None,
        on_exit: Callable[[App], None] | None = None,
    ) -> None:
        if workers < 1:
            raise ConfigError("At least one worker is needed.")
        self._app_factory = app_factory
        self._wanted = Address.parse(listen)
        self._workers = workers
        self._tls_files = (tls_cert, tls_key)
        self._limits = limits or Limits()
        self._shutdown_timeout = shutdown_timeout
        self._observer = observer
        self._ready = ready
        self._watch = watch
        self._on_exit = on_exit
        self._bound: Address | None = None
        self._engine: Engine | None = None
        self._app: App | None = None

    # -- a process of its own

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or SIGHUP. Gives the exit status, 0 after a clean stop.

        A second signal ends at once. Where SIGHUP is ignored, as nohup(1) has it, it stays so.
        """
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._raise_file_limit()
        tls = self._load_tls()
        listener, self._bound = bind(self._wanted)
        try:
            if self._workers > 1:
                return Supervisor(
                    workers=self._workers,
                    serve=lambda share, signals, started: self._serve(listener, tls, signals, started, share),
                    listener=listener,
                    ready=self._announce,
                    shutdown_timeout=self._shutdown_timeout,
                ).run()
            with StopSignals() as signals:
                self._serve(listener, tls, signals, self._announce)
            return 0
        finally:
            listener.close()
            self._remove_socket()

    def _serve(
        self,
        listener: socket.socket,
        tls: Tls | None,
        signals: StopSignals,
        started: Callable[[], None],
        share: Share | None = None,
    ) -> None:
        """Serve in this process until a signal comes."""
        self._start_engine(listener, tls, share)
        started()
        signals.wait()
        self._end()

    # -- inside another program

    def start(self) -> None:
        """Serve in threads of this process, without signals, until `stop`."""
        if self._workers != 1:
            raise ConfigError("Several workers need a process of their own.")
        tls = self._load_tls()
        listener, self._bound = bind(self._wanted)
        try:
            self._start_engine(listener, tls, None)
        except BaseException:
            listener.close()
            self._remove_socket()
            raise
        self._announce()

    def stop(self) -> None:
        """Finish what is under way, for at most `shutdown_timeout`, and end. A second call does nothing."""
        self._end()
        self._remove_socket()

    def _end(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        engine.stop(timeout=self._shutdown_timeout)
        if self._on_exit is not None and self._app is not None:
            self._on_exit(self._app)

    @property
    def address(self) -> str:
        """The address with its real port, in the form of `listen`; once bound."""
        if self._bound is None:
            raise ValueError("the server is not listening yet")
        return str(self._bound)

    @property
    def url(self) -> str:
        """The URL of the root, "http://127.0.0.1:9292"; for a unix socket its address."""
        if self._bound is not None and self._bound.path:
            return self.address
        scheme = "https" if self._tls_files[0] else "http"
        return f"{scheme}://{self.address}"

    # -- parts

    def _start_engine(self, listener: socket.socket, tls: Tls | None, share: Share | None) -> None:
        assert self._bound is not None  # noqa: S101  (bound by the callers)
        self._app = self._app_factory()
        self._engine = Engine(
            app=self._app,
            listener=listener,
            address=self._bound,
            limits=self._limits,
            tls=tls,
            observer=self._observer,
            share=share,
        )
        self._engine.start()
        if self._watch is not None:
            self._watch(self._engine.sample)

    def _load_tls(self) -> Tls | None:
        certificate, key = self._tls_files
        if certificate is None:
            if key is not None:
                raise ConfigError("A TLS key needs its certificate.")
            return None
        return load_tls(certificate=certificate, key=key)

    def _announce(self) -> None:
        if self._ready is not None:
            self._ready(self.url)

    def _remove_socket(self) -> None:
        if self._bound is not None and self._bound.path:
            Path(self._bound.path).unlink(missing_ok=True)

    def _raise_file_limit(self) -> None:
        """Allow as many open files as the connections may need, as far as the system lets us."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * self._limits.max_connections + 512
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        room = max(16, (limit - 512) // 2)
        if room < self._limits.max_connections:
            self._limits = replace(self._limits, max_connections=room)
