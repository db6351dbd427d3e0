# SPDX-License-Identifier: Apache-2.0
"""What was fetched of an image, or is on its way, in memory until it was read.

Answers for who fetches a part (whoever comes first), for who waits for it, and for how much memory all parts of all
images may take. Does not know what to fetch.

Threading: a `Part` and the `Memory` may be used from many threads; `Parts` belongs to whoever holds its reader's lock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Final


@dataclass(slots=True, eq=False)
class Part:
    """The bytes from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int
    is_ahead: bool = False
    """Whether nobody asked for it yet."""
    data: memoryview | None = None
    error: Exception | None = None
    left: int = 0
    """How many of its bytes were not read yet."""
    done: Event = field(default_factory=Event)
    _claim: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.left = len(self)

    def __len__(self) -> int:
        return self.stop - self.start

    def claim(self) -> bool:
        """Take it on oneself to fetch this; only the first who asks may."""
        return self._claim.acquire(blocking=False)

    @property
    def is_claimed(self) -> bool:
        """Whether somebody fetches it, or did."""
        return self._claim.locked()


class Memory:
    """How much of the memory that parts may take is taken."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._taken = 0
        self._turn: Final = Lock()

    def take(self, size: int, *, needed: bool) -> bool:
        """Take memory, beyond the limit only if it is needed at once; say whether it is taken."""
        with self._turn:
            if not needed and self._taken + size > self._most:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Give memory back."""
        with self._turn:
            self._taken -= size

    @property
    def is_short(self) -> bool:
        """Whether more is taken than there should be."""
        return self._taken > self._most

    @property
    def taken(self) -> int:
        """How much is taken, in bytes."""
        return self._taken


class Parts:
    """The parts of one open image, none of which overlap: ``most`` bytes, and beyond only what somebody waits for."""

    def __init__(self, *, memory: Memory, most: int) -> None:
        self._memory: Final = memory
        self._most: Final = most
        self._starts: Final[list[int]] = []
        self._parts: Final[OrderedDict[int, Part]] = OrderedDict()
        """By where they start, the one that was read last, or began last, at the end."""
        self._size = 0

    def __iter__(self) -> Iterator[Part]:
        return iter(list(self._parts.values()))

    def at(self, position: int) -> Part | None:
        """Give the part that holds a position."""
        number = bisect_right(self._starts, position) - 1
        if number < 0:
            return None
        part = self._parts[self._starts[number]]
        return part if position < part.stop else None

    def next_start(self, position: int, stop: int) -> int:
        """Give where the next part after a position begins, at the most ``stop``."""
        number = bisect_right(self._starts, position)
        return min(stop, self._starts[number]) if number < len(self._starts) else stop

    def add(self, start: int, stop: int, *, is_ahead: bool) -> Part | None:
        """Begin a part; None if it is only for later and there is no room."""
        size = stop - start
        while self._size + size > self._most and self._drop_oldest():
            pass
        if is_ahead and self._size + size > self._most:
            return None
        if not self._memory.take(size, needed=not is_ahead):
            return None
        part = Part(start, stop, is_ahead)
        self._starts.insert(bisect_right(self._starts, start), start)
        self._parts[start] = part
        self._size += size
        return part

    def read(self, part: Part, start: int, stop: int) -> memoryview:
        """Give bytes of a part that is here; one that was read to its end is let go of: the kernel has it."""
        if part.data is None:
            raise LookupError(start)
        piece = part.data[start - part.start : stop - part.start]
        part.is_ahead = False
        part.left -= stop - start
        if self._parts.get(part.start) is part:
            self._parts.move_to_end(part.start)
        if part.left <= 0 or self._memory.is_short:
            self.drop(part)
        return piece

    def drop(self, part: Part) -> None:
        """Let go of a part; may be called twice."""
        if self._parts.get(part.start) is part:
            del self._parts[part.start]
            del self._starts[bisect_right(self._starts, part.start) - 1]
            self._size -= len(part)
            self._memory.give(len(part))

    def trim(self) -> None:
        """Let go of everything that is here; what is on its way stays."""
        while self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        oldest = next((part for part in self._parts.values() if part.done.is_set()), None)
        if oldest is not None:
            self.drop(oldest)
        return oldest is not None
