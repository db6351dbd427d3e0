# SPDX-License-Identifier: Apache-2.0
"""The signals that stop a server.

Answers for SIGTERM and SIGINT: the first asks for a stop, the second ends the process at once. Does not stop anything.

Threading: made, entered, waited for and left in the main thread, where Python runs signal handlers.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

_BY_SIGNAL = 128


class StopSignals:
    """Waits for a signal that asks to stop; the handlers that were there come back at the end.

    `stopping` ask for a stop, `also` only wake. `at_once` is called before a second one ends the process. `lifeline` is
    a descriptor whose end of file asks for a stop too: a pipe from a parent that may die.
    """

    def __init__(
        self,
        *,
        stopping: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
        also: tuple[signal.Signals, ...] = (),
        at_once: Callable[[], None] | None = None,
        lifeline: int | None = None,
    ) -> None:
        self._stopping = stopping
        self._also = also
        self._at_once = at_once
        self._lifeline = lifeline
        self._reader, self._writer = -1, -1
        self._wakeup_before = -1
        self._before: dict[signal.Signals, object] = {}
        self.received: signal.Signals | None = None
        """The signal that asked to stop, once one came."""

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (*self._stopping, *self._also):
            # Who was started by nohup(1) is to outlive its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        # Written by the C handler: one written in Python would run too late for a poll that is about to begin.
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave, it takes
        os.close(self._reader)
        os.close(self._writer)

    def wait(self) -> None:
        """Wait until a signal asks to stop, or the lifeline ends."""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        if self._lifeline is not None:
            poller.register(self._lifeline, select.POLLIN)
        while self.received is None:
            if any(fd != self._reader for fd, _ in poller.poll()):
                return
            self.drain()

    def fileno(self) -> int:
        """Give a descriptor that is readable after a signal."""
        return self._reader

    def drain(self) -> None:
        """Take what made the descriptor readable."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 64)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        came = signal.Signals(number)
        if came in self._stopping:
            if self.received is not None:
                # A terminal that is closed may say so more than once, and nobody meant to be impatient.
                if came is signal.SIGHUP:
                    return
                if self._at_once is not None:
                    self._at_once()
                os._exit(_BY_SIGNAL + number)
            self.received = came
