# SPDX-License-Identifier: Apache-2.0
"""How soon the loop runs once there is something to do: on a busy machine that is most of what a small request takes.

The scheduler lets every thread run for some milliseconds, and whoever wakes up waits for those that are running. The
loop works for microseconds at a time. So it asks for short turns, which come sooner and are no more in all
(``sched_runtime`` of sched_setattr(2) for a thread that is not a real-time one, since Linux 6.12), and to be preferred
where it may be, which is root's to decide. Threads and processes that it starts get neither, as what they do is long.

Answers for that, for one thread. What an operator has said of the whole process holds on: the loop is preferred to the
rest of it. A policy other than the usual one is left alone, and so is a process that is preferred as a whole: what it
starts would lose that (SCHED_RESET_ON_FORK of sched(7)). And for when the threads of a mount share a core
(`glancefs.cores`).

Threading: called by the thread that it is for.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import trio

from glancefs.cores import LASTING, Cores

_CALLS: Final[Mapping[str, int]] = MappingProxyType({"x86_64": 314, "aarch64": 274})
"""The number of sched_setattr(2); the GNU C library has a function for it since 2.41."""
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice value, priority, runtime, deadline, period."""
_NOT_FOR_CHILDREN: Final = 1
"""SCHED_FLAG_RESET_ON_FORK."""
_TURN: Final = 100_000
"""Nanoseconds; the scheduler knows no shorter ones."""
_PREFERENCE: Final = 10
"""Steps of the nice value: nine times the share of another thread on a core that both want (sched(7))."""


class Pace:
    """The pace of the thread that makes this: soon from `begin` on, but for as long as somebody writes.

    Many writers are served best together: a loop that wakes for each of them takes the interpreter from the threads
    that work for them, and made a third fewer small files. Where many files come, all of these share a core.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self.cores: Final = Cores()
        self._soon: bytes | None = None
        self._usual = b""
        self._call: Callable[[bytes], bool] | None = None
        self._writers = 0
        self._gathered = trio.Event()

    def begin(self) -> None:
        """Have this thread run soon after it wakes up, as far as this machine and this user can."""
        number = _CALLS.get(platform.machine())
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER or usual < 0:
            return
        call = ctypes.CDLL(None).syscall
        call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)
        self._call = lambda said: not call(number, 0, said, 0)
        self._usual = _attributes(nice=usual, turn=0)
        wanted = (_attributes(nice=nice, turn=_TURN) for nice in (usual - _PREFERENCE, usual))
        self._soon = next(filter(self._call, wanted), None)

    def begin_write(self) -> None:
        """Say that a file is open for writing."""
        self._writers += 1
        if self.cores.note():
            self._gathered.set()
        if self._writers == 1 and self._soon is not None and self._call is not None:
            self._call(self._usual)

    def end_write(self) -> None:
        """Say that one of them is not any more."""
        self._writers -= 1
        if not self._writers and self._soon is not None and self._call is not None:
            self._call(self._soon)

    async def run(self) -> None:
        """Have the threads that share a core part after a while, until cancelled; while files come, they meet again."""
        try:
            while True:
                await self._gathered.wait()
                await trio.sleep(LASTING)
                self._gathered = trio.Event()
                self.cores.part()
        finally:
            self.cores.part()


def _attributes(*, nice: int, turn: int) -> bytes:
    return _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _NOT_FOR_CHILDREN, nice, 0, turn, 0, 0)
