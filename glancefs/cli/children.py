# SPDX-License-Identifier: Apache-2.0
"""Doors in processes of their own, started by one that watches them.

Answers for the fork, for what a child says (`glancefs.reporting`, and the lines that it logs), and for its end: it ends
with its parent, whatever ends that. Does not know what the children do.

Threading: children are started before the parent has threads; everything here belongs to its main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NoReturn

from glancefs.errors import ConfigError, GlancefsError
from glancefs.reporting import Report, Reporter, reporting

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SET_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_PIECE: Final = 1 << 16
_LONGEST_LINE: Final = 4096
FAILED: Final = 1


class Child:
    """A process that was started here."""

    def __init__(self, name: str, work: Callable[[Reporter], None]) -> None:
        """Start it. ``work`` returns at its end, or raises what kept it from its work, which becomes a report."""
        self.name: Final = name
        self.is_ready = False
        reporter, self._reports = reporting()
        self._log, log = os.pipe2(os.O_CLOEXEC)
        self._rest = b""
        self._is_over = False
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # Until the child has handlers of its own, a signal would go to the parent's, which it shares.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self.pid: Final = os.fork()
        if not self.pid:
            _become(work, reporter, log, parent, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pidfd: Final = os.pidfd_open(self.pid)
        os.close(log)
        os.set_blocking(self._log, False)
        reporter.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable when it has something to say, or has ended."""
        return (self._reports.fileno(), self.pidfd, *(() if self._is_over else (self._log,)))

    def reports(self) -> list[Report]:
        """Take what it reports."""
        return self._reports.take()

    def lines(self) -> Iterator[str]:
        """Take what it has logged, line by line."""
        while not self._is_over:
            try:
                piece = os.read(self._log, _PIECE)
            except BlockingIOError:
                return
            self._is_over = not piece
            *whole, self._rest = (self._rest + piece).split(b"\n")
            if self._rest and (self._is_over or len(self._rest) > _LONGEST_LINE):
                whole, self._rest = [*whole, self._rest], b""
            yield from (line.decode(errors="replace") for line in whole)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; it may have ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def ended(self, *, wait: bool = False) -> int | None:
        """Give its exit status, or the negated signal that killed it; None for one that lives."""
        pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        """Let go of one that has ended."""
        self._reports.close()
        os.close(self._log)
        os.close(self.pidfd)


def how_it_ended(status: int) -> str:
    """Say in words what an exit status means."""
    if status >= 0:
        return f"ended by itself with exit status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def _become(
    work: Callable[[Reporter], None], reporter: Reporter, log: int, parent: int, mask: set[int | signal.Signals]
) -> NoReturn:
    """Be the child; never returns into the parent's code."""
    status = FAILED
    try:
        # Ctrl-C goes to whoever has the terminal: the parent, who passes it on.
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nowhere), (1, log), (2, log)):
            os.dup2(source, target)
        _stay_with(parent)
        # Who has become another user of files since (setfsuid(2)) would outlive its parent.
        reporter.before_ready = partial(_stay_with, parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in _SIGNALS:
            signal.signal(number, _end)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        work(reporter)
        status = 0
    except GlancefsError as error:
        reporter.failed(error)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else FAILED
    except BaseException as error:  # noqa: BLE001 - the last guard of the process: it is told
        reporter.failed(ConfigError(f"An error that nobody expected, {type(error).__name__}: {error}."))
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _stay_with(parent: int) -> None:
    """Be ended when the parent is; one that has died already ends this process now."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGTERM))
    if os.getppid() != parent:
        sys.exit(FAILED)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)
