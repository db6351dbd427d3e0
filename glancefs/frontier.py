# SPDX-License-Identifier: Apache-2.0
"""How far a file is written that somebody follows while it grows, and whether what was taken of it is still true.

Answers for the order of things: nothing behind the beginning of a write that is under way can be relied on, and once
something is written or cut off that was taken already, whoever took it has to begin anew. Reads no bytes.

Threading: belongs to whoever follows, and is used under the follower's lock.
"""

from __future__ import annotations

from collections import Counter
from typing import Final


class Frontier:
    """The frontier of one file, for one follower. With ``is_strict`` it stops for good where something is left out."""

    def __init__(self, *, is_strict: bool = False) -> None:
        self._is_strict: Final = is_strict
        self._end = 0
        self._under_way: Final[Counter[int]] = Counter()
        """Where writes that are not done yet begin."""
        self.taken = 0
        """Up to where bytes were taken, or are being taken."""
        self.is_valid = True
        """Whether what was taken is still what the file holds."""

    @property
    def reliable(self) -> int:
        """Up to where the bytes are what they will be, unless they are written anew."""
        return min(self._end, *self._under_way, self._end)

    def begin_write(self, offset: int) -> None:
        """Say that a write is about to begin here."""
        self._under_way[offset] += 1
        if offset < self.taken:
            self.is_valid = False

    def end_write(self, offset: int, end: int) -> None:
        """Say that this write is over, and up to where it came."""
        self._under_way[offset] -= 1
        if not self._under_way[offset]:
            del self._under_way[offset]
        if offset <= self._end or not self._is_strict:
            self._end = max(self._end, end)

    def cut(self, size: int) -> None:
        """Say that the file is about to get this size."""
        self._end = min(self._end, size)
        if size < self.taken:
            self.is_valid = False

    def take(self, most: int) -> tuple[int, int]:
        """Take what comes next of what can be relied on, up to so many bytes; gives where it begins and ends."""
        start = self.taken
        self.taken = max(start, min(self.reliable, start + most))
        return start, self.taken

    def start_anew(self) -> None:
        """Say that nothing is taken."""
        self.taken = 0
        self.is_valid = True
