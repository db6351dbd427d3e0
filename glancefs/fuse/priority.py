# SPDX-License-Identifier: Apache-2.0
"""How soon the loop runs once there is something to do: on a busy machine that is most of what a small request takes.

The scheduler lets every thread run for some milliseconds, and whoever wakes up waits for those that are running. The
loop works for microseconds at a time. So it asks for short turns, which come sooner and are no more in all
(``sched_runtime`` of sched_setattr(2) for a thread that is not a real-time one, since Linux 6.12), and to be preferred
where it may be, which is root's to decide. Threads and processes that it starts get neither, as what they do is long.

Answers for that, for one thread. What an operator has said of the whole process holds on: the loop is preferred to the
rest of it. A policy other than the usual one is left alone, and so is a process that is preferred as a whole: what it
starts would lose that (SCHED_RESET_ON_FORK of sched(7)).

Threading: called by the thread that it is for.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

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


def answer_soon() -> None:
    """Have the calling thread run soon after it wakes up, as far as this machine and this user can."""
    number = _CALLS.get(platform.machine())
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER or usual < 0:
        return
    call = ctypes.CDLL(None).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)
    for nice in (usual - _PREFERENCE, usual):
        said = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _NOT_FOR_CHILDREN, nice, 0, _TURN, 0, 0)
        if not call(number, 0, said, 0):
            return
