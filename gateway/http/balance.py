# SPDX-License-Identifier: Apache-2.0
"""Fair shares of the connections among several processes at one listening socket.

Answers for telling a worker whether a new connection is its to take: when it has no more open ones than any other. Left
alone, the kernel wakes whoever slept last, so that one worker may get all connections that are kept alive; and
SO_REUSEPORT throws a coin for each. Does not accept.

Threading: each worker writes its own number alone, an aligned word of shared memory; all may read all.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection

_ABSENT = -1
_WORD = 8
_OTHERS_TURN = 0.02
"""How long a connection may wait for the worker whose turn it is, in seconds."""


class Balance:
    """What each worker has, in memory that all processes share; made before the fork.

    That is the number of its open connections, and the core that its threads share (`glancefs.cores`).
    """

    def __init__(self, *, workers: int) -> None:
        self._memory = mmap.mmap(-1, 2 * _WORD * workers)
        words = memoryview(self._memory).cast("q")
        self._counts, self._cores = words[:workers], words[workers:]
        for number in range(workers):
            self.leave(number)

    def leave(self, number: int) -> None:
        """Take note that a worker takes no connections."""
        self._counts[number] = self._cores[number] = _ABSENT

    def share(self, number: int) -> Share:
        """Give a worker its share; it counts from its first report on."""
        return Share(self._counts, self._cores, number)


class Share:
    """One worker's part in the balance."""

    __slots__ = ("_cores", "_counts", "_number", "_passed_first", "_passed_last")

    def __init__(self, counts: memoryview[int], cores: memoryview[int], number: int) -> None:
        self._counts = counts
        self._cores = cores
        self._number = number
        self._passed_first = 0.0
        self._passed_last = 0.0

    def report(self, count: int) -> None:
        """Say how many connections this worker has open."""
        self._counts[self._number] = count

    def leave(self) -> None:
        """Take no more connections."""
        self._counts[self._number] = _ABSENT

    def cores_of_others(self) -> Collection[int]:
        """Give the cores that other workers share, each among its threads."""
        return {core for number, core in enumerate(self._cores) if number != self._number and core != _ABSENT}

    def take_core(self, core: int | None) -> None:
        """Say which core the threads of this worker share (None: none)."""
        self._cores[self._number] = _ABSENT if core is None else core

    def may_take(self, now: float) -> bool:
        """Whether to take the connection that waits: because it is ours, or because nobody else takes it."""
        ours = self._counts[self._number]
        if all(ours <= count for count in self._counts if count != _ABSENT):
            return True
        if now - self._passed_last > _OTHERS_TURN:
            self._passed_first = now
        self._passed_last = now
        return now - self._passed_first > _OTHERS_TURN
