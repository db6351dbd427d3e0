# SPDX-License-Identifier: Apache-2.0
"""Numbers that several processes count together, so that any of them can tell the total.

Answers for memory that is shared by a process and its later forks, with one slot for each that counts. Does not know
what is counted. A slot belongs to its process by a lock that ends with it; who comes next goes on counting there.

Threading: `slot` may be called from many threads; adding to a slot's numbers needs a lock of the caller's.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from typing import Final

_NUMBER: Final = 8
"""The bytes of a number: a C double."""


class SharedNumbers:
    """``slots`` times ``width`` numbers, all zero at first, that outlive the processes that count in them."""

    def __init__(self, *, slots: int, width: int) -> None:
        self._slots = slots
        self._width = width
        self._file = os.memfd_create("glancefs-metrics")
        os.ftruncate(self._file, slots * width * _NUMBER)
        self._memory = mmap.mmap(self._file, slots * width * _NUMBER)
        self._all = memoryview(self._memory).cast("d")
        self._lock = threading.Lock()
        self._owner = -1
        self._mine: memoryview[float] = self._all[:0]

    def slot(self) -> tuple[memoryview[float], bool]:
        """Give this process's numbers, and whether it has just taken them over."""
        process = os.getpid()
        if process == self._owner:
            return self._mine, False
        with self._lock:
            if process == self._owner:
                return self._mine, False
            start = self._free_slot() * self._width
            self._mine = self._all[start : start + self._width]
            self._owner = process
            return self._mine, True

    def every_slot(self) -> Sequence[memoryview[float]]:
        """Give the numbers of all processes, dead ones too."""
        return [self._all[index * self._width : (index + 1) * self._width] for index in range(self._slots)]

    def close(self) -> None:
        """Let go of the memory; nobody may count any more."""
        self._mine.release()
        self._all.release()
        self._memory.close()
        os.close(self._file)

    def _free_slot(self) -> int:
        for index in range(self._slots):
            try:
                # POSIX locks are not inherited by a fork and end with the process, however it ends.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
            except OSError:
                continue
            return index
        # More processes than were planned for: a count may be lost now and then, which is better than none at all.
        return self._slots - 1
