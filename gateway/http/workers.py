# SPDX-License-Identifier: Apache-2.0
"""Several processes at one address.

Answers for forking the workers, passing a stop on to them, and starting another where one died. The parent answers no
requests and starts no threads, so that forking stays safe at any time. Does not accept.

Threading: the parent is single-threaded; each child goes its own way after the fork.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.http.balance import Balance, Share
from gateway.http.signals import StopSignals
from glancefs.errors import ConfigError, GlancefsError

_STARTED = b"+"
_SHORTEST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_PROVEN = 30.0
"""After so many seconds a worker's death has nothing to do with its start."""
_MARGIN = 5.0
"""What the children get beyond their own time limits before they are killed."""
_MESSAGE = 4096
_HANDLED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass(slots=True, kw_only=True)
class _Place:
    """One worker's place: the process in it, and when it may be filled again."""

    number: int
    pid: int = 0
    since: float = 0.0
    pause: float = _SHORTEST_PAUSE
    due: float = 0.0
    news: int = -1
    """The end of a pipe on which a starting worker tells how it went."""


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Runs `serve(share, signals, started)` in `workers` forked processes until a signal comes."""

    workers: int
    serve: Callable[[Share, StopSignals, Callable[[], None]], None]
    listener: socket.socket
    ready: Callable[[], None]
    shutdown_timeout: float
    _places: list[_Place] = field(default_factory=list)
    _lifeline: tuple[int, int] = (-1, -1)
    _announced: bool = False
    _balance: Balance = field(init=False)
    _log: logging.Logger = field(default_factory=lambda: logging.getLogger("glancefs.gateway"))

    def run(self) -> int:
        """Serve until told to stop. Gives 0 after a clean stop. Raises ConfigError when a worker can't start."""
        self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._balance = Balance(workers=self.workers)
        self._places = [_Place(number=number) for number in range(self.workers)]
        signals = StopSignals(also=(signal.SIGCHLD,), at_once=self._kill)
        with signals:
            try:
                while signals.received is None:
                    self._fill()
                    self._watch(signals)
                return self._stop()
            finally:
                self._kill()
                for end in self._lifeline:
                    os.close(end)

    # -- the parent

    def _fill(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if not place.pid and place.due <= now:
                self._fork(place)

    def _fork(self, place: _Place) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        # Until the child has handlers of its own, a signal would go to the parent's pipe, which it shares.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if not pid:
            os.close(reader)
            self._child(place, writer, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
        place.pid, place.since, place.news = pid, time.monotonic(), reader

    def _watch(self, signals: StopSignals) -> None:
        """Wait for a signal, a child's news, or the time to start another."""
        poller = select.poll()
        poller.register(signals.fileno(), select.POLLIN)
        for place in self._places:
            if place.news >= 0:
                poller.register(place.news, select.POLLIN)
        pauses = [place.due - time.monotonic() for place in self._places if not place.pid]
        found = dict(poller.poll(max(0.0, min(pauses)) * 1000 if pauses else None))
        if signals.fileno() in found:
            signals.drain()
        for place in self._places:
            if place.news in found:
                self._hear(place)
        self._reap()

    def _hear(self, place: _Place) -> None:
        message = os.read(place.news, _MESSAGE)
        os.close(place.news)
        place.news = -1
        if message != _STARTED:
            if not self._announced and message:
                raise ConfigError(message.decode(errors="replace"))
            return
        if not self._announced and all(other.pid and other.news < 0 for other in self._places):
            self._announced = True
            self.ready()

    def _reap(self) -> None:
        for place in self._places:
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                self._bury(place, os.waitstatus_to_exitcode(status))

    def _bury(self, place: _Place, code: int) -> None:
        self._balance.leave(place.number)
        now = time.monotonic()
        if now - place.since > _PROVEN:
            place.pause = _SHORTEST_PAUSE
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self._log.error("worker %d (%d) %s; another starts in %g s", place.number, place.pid, how, place.pause)
        place.pid, place.due = 0, now + place.pause
        place.pause = min(2 * place.pause, _LONGEST_PAUSE)

    def _stop(self) -> int:
        self.listener.close()
        self._tell(signal.SIGTERM)
        deadline = time.monotonic() + self.shutdown_timeout + _MARGIN
        clean = True
        while living := [place for place in self._places if place.pid]:
            for place in living:
                pid, status = os.waitpid(place.pid, os.WNOHANG)
                if pid:
                    place.pid = 0
                    clean = clean and os.waitstatus_to_exitcode(status) == 0
            if time.monotonic() > deadline:
                self._log.error("%d workers did not end in time and are killed", len(living))
                return 1
            time.sleep(0.01)
        return 0 if clean else 1

    def _tell(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.pid, number)

    def _kill(self) -> None:
        self._tell(signal.SIGKILL)
        for place in self._places:
            if place.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(place.pid, 0)
                place.pid = 0

    # -- the child

    def _child(self, place: _Place, news: int, mask: Iterable[int]) -> None:
        """Be a worker, and end the process. Never returns."""
        status = 1
        try:
            # A terminal sends its signals to parent and children alike; the parent's SIGTERM is what counts here.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._lifeline[1])
            with StopSignals(stopping=(signal.SIGTERM,), lifeline=self._lifeline[0]) as signals:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                self.serve(self._balance.share(place.number), signals, lambda: _tell_started(news))
            status = 0
        except GlancefsError as error:
            os.write(news, str(error).encode()[:_MESSAGE])
        except BaseException:  # noqa: BLE001  (nothing of the parent may run in the child)
            self._log.exception("worker %d failed", place.number)
        finally:
            logging.shutdown()
            os._exit(status)


def _tell_started(news: int) -> None:
    os.write(news, _STARTED)
    os.close(news)
