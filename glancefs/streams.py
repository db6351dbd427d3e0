# SPDX-License-Identifier: Apache-2.0
"""Which reads of one file go on where an earlier one ended, and how far it pays to read ahead of them.

Answers for telling runs from jumps, also where several runs take turns, and for how much is asked for ahead: as much as
the run itself has read, so that what nobody wants in the end is never more than what was wanted. A jump begins with
nothing ahead. Reads nothing itself.

Threading: belongs to one caller at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import Final

GRANULE: Final = 64 << 10
"""In bytes, a power of two: all that is asked for begins and ends at multiples of it. A cluster of qcow2, and little
beside what an answer takes to come over a network."""

_REACH_BACK: Final = 1 << 20
"""In bytes: requests of one run that the kernel has under way together overtake each other by so much."""
_MOST_RUNS: Final = 16
_RECENT: Final = 4
"""A run counts as going on if it came up within the last so many reads for each run that is known."""


@dataclass(slots=True, kw_only=True)
class _Run:
    next: int
    """Where it would go on."""
    ahead: int
    """Up to where was asked for."""
    read: int
    """How many bytes it has read."""
    turn: int
    """When it came up last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A range to be asked for ahead, and how far ahead of its reader the run may get at present."""

    start: int
    stop: int
    window: int


def floor(position: int) -> int:
    """Give the multiple of the granule at or before a position."""
    return position & -GRANULE


def ceiling(position: int) -> int:
    """Give the multiple of the granule at or after a position."""
    return -(-position // GRANULE) * GRANULE


class Streams:
    """The runs in one file of ``size`` bytes; all of them together get ``most_ahead`` bytes ahead of their readers."""

    def __init__(self, *, size: int, most_ahead: int) -> None:
        self._size: Final = size
        self._most_ahead: Final = most_ahead
        self._turns: Final = count()
        self._runs: Final[OrderedDict[int, _Run]] = OrderedDict()
        """By the number of the turn in which each began, the one that came up last at the end."""

    def note(self, start: int, stop: int) -> Ahead | None:
        """Take notice of a read from ``start`` up to, not including, ``stop``; say what to ask for ahead, if any."""
        turn = next(self._turns)
        found = self._run_at(start)
        if found is None:
            self._runs[turn] = _Run(next=stop, ahead=stop, read=stop - start, turn=turn)
            if len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)
            return None
        self._runs.move_to_end(found)
        run = self._runs[found]
        run.turn = turn
        if stop <= run.next:
            return None
        run.read += stop - max(start, run.next)
        run.next = stop
        run.ahead = max(run.ahead, stop)
        return self._ahead_of(run)

    def _ahead_of(self, run: _Run) -> Ahead | None:
        window = floor(min(run.read, self._most_ahead // self._going(run.turn)))
        # Asked for once half of it is used up: few requests, and none too late.
        if window == 0 or run.ahead - run.next > window // 2 or run.ahead >= self._size:
            return None
        start = run.ahead
        run.ahead = min(self._size, max(start, floor(run.next + window)))
        return Ahead(start=start, stop=run.ahead, window=window) if run.ahead > start else None

    def _run_at(self, start: int) -> int | None:
        """Give the run that a read belongs to: it begins where the run stopped, or near by."""
        near = [
            (abs(start - run.next), number)
            for number, run in self._runs.items()
            if -_REACH_BACK <= start - run.next <= GRANULE and run.next - run.read <= start
        ]
        return min(near)[1] if near else None

    def _going(self, turn: int) -> int:
        since = turn - _RECENT * len(self._runs)
        return sum(1 for run in self._runs.values() if run.turn >= since and run.read >= GRANULE) or 1
