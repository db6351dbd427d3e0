# SPDX-License-Identifier: Apache-2.0
"""On which cores threads run: those that take turns at the interpreter share one, where there are many short turns.

One thread at a time runs Python. A small file or a small request takes the threads that work for it dozens of turns of
microseconds each, and a turn that goes to another core has to wait until that one has woken up, which takes longer than
the turn. On one core the same threads do half as much again and more, by half the processor time. What is long goes to
any core: moving or hashing large pieces lets go of the interpreter.

Answers for where threads are allowed to run, within what the operator allows, and for when they share a core. Every
second the scheduler has a say which one that is. Where there is one core, or where it can't be said, everything stays
as it is.

Threading: `note` and `part` are called by the thread to whose core the others come, the rest by every thread for
itself.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from threading import local
from typing import Final, Protocol

LASTING: Final = 1.0
"""Seconds for which a core is shared: by then another one may be the better one, or nothing comes any more."""
_BRISK: Final = 0.1
"""Seconds between two things that come, within which many are taken to come."""
_SETTLING: Final = 0.02
"""Seconds within which the scheduler has had its say where a thread runs."""
_AT_FIRST: Final = frozenset(os.sched_getaffinity(0))
"""What the process was allowed when this was loaded."""


def roam() -> None:
    """Let the calling thread run wherever it may: it has inherited where it runs from whoever started it."""
    with suppress(OSError):
        os.sched_setaffinity(0, _AT_FIRST)


class Neighbours(Protocol):
    """Other processes of ours, which share cores of their own."""

    def cores_of_others(self) -> Collection[int]:
        """Give the cores that they share."""
        ...

    def take_core(self, core: int | None) -> None:
        """Tell them which one this process shares."""
        ...


class Cores:
    """The cores of some threads of this process."""

    def __init__(self, *, neighbours: Neighbours | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Change nothing yet."""
        self._clock: Final = clock
        self._neighbours: Final = neighbours
        self._own: Final = local()
        self._allowed = _AT_FIRST
        self._home: int | None = None
        self._latest = self._gathered = self._parted = -math.inf
        self._current = getattr(ctypes.CDLL(None), "sched_getcpu", None)
        self._is_possible = self._current is not None

    @property
    def home(self) -> int | None:
        """The core that is shared, by its number; None: nobody shares any."""
        return self._home

    # ---- the thread to which the others come

    def note(self) -> bool:
        """Say that something brief has come; where it is one of many, the threads share the caller's core from now on.

        They come when they `enter`. Says whether that has begun just now; then the caller sees to it that they `part`.
        """
        now = self._clock()
        before, self._latest = self._latest, now
        is_due = self._home is None and now - before < _BRISK and now - self._parted > _SETTLING
        return is_due and self._gather(now)

    def part(self) -> None:
        """Share none any more. The caller goes where the scheduler has it, the others do when they `enter`."""
        if self._home is not None:
            self._parted = self._clock()
            self._say(None)
            self.leave()

    def part_in_time(self) -> None:
        """Share none any more, if it has lasted."""
        if self._home is not None and self._clock() - self._gathered > LASTING:
            self.part()

    def _gather(self, now: float) -> bool:
        if not self._is_possible or self._current is None:
            return False
        # What the operator says meanwhile, of this thread, holds for all of them.
        self._allowed = frozenset(os.sched_getaffinity(0))
        if len(self._allowed) == 1:
            return False
        home = int(self._current())
        taken = self._neighbours.cores_of_others() if self._neighbours is not None else ()
        if home in taken:
            # Two that share one core would be slower than all threads on all.
            home = min(self._allowed.difference(taken), default=home)
        if home not in self._allowed or not self._move({home}):
            return False
        self._gathered = now
        self._own.place = home
        self._say(home)
        return True

    def _say(self, home: int | None) -> None:
        self._home = home
        if self._neighbours is not None:
            self._neighbours.take_core(home)

    # ---- every thread

    def enter(self, *, is_brief: bool) -> None:
        """Go where this thread belongs for what it is about to do: more of Python, or (not brief) more of data."""
        home = self._home
        if not is_brief or home is None:
            self.leave()
        elif self._place != home and self._move({home}):
            self._own.place = home

    def leave(self) -> None:
        """Go wherever the scheduler has this thread."""
        if self._place is not None:
            self._own.place = None
            self._move(self._allowed)

    @property
    def _place(self) -> int | None:
        """The core that this thread is bound to. A thread inherits that from the one that starts it."""
        try:
            place: int | None = self._own.place
        except AttributeError:
            now = os.sched_getaffinity(0)
            place = self._own.place = next(iter(now)) if len(now) == 1 < len(self._allowed) else None
        return place

    def _move(self, cores: Collection[int]) -> bool:
        try:
            os.sched_setaffinity(0, cores)
        except OSError:
            # The operator has changed what is allowed meanwhile, or lets nobody say.
            self._is_possible = False
            return False
        return True
