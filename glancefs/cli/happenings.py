# SPDX-License-Identifier: Apache-2.0
"""What is going on at the doors: where they are, what they move and how fast, and what has happened.

Answers for putting reports together to what a person wants to see. How it is shown, `glancefs.cli.screen` and
`glancefs.cli.up` know.

Threading: belongs to one thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from glancefs.cli.text import human_size, visible
from glancefs.reporting import Sample, Transfer

_WINDOW: Final = 3.0
"""Seconds over which a rate is taken."""
_SILENT: Final = 3.0
"""Seconds after which a process that said nothing of its transfers is taken for dead."""
_KEPT: Final = 200


@dataclass(slots=True)
class Rate:
    """Bytes per second, over the last seconds."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now: float, total: int) -> None:
        """Take note of a total."""
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW:  # noqa: PLR2004 - the ends of a stretch
            self._seen.popleft()

    def at(self, now: float) -> int:
        """Give the rate; 0 where nothing has come for a while."""
        if not self._seen or now - self._seen[-1][0] > _WINDOW:
            return 0
        (start, before), (_, after) = self._seen[0], self._seen[-1]
        return int((after - before) / (now - start)) if now > start else 0


@dataclass(slots=True)
class Moving:
    """A transfer under way."""

    transfer: Transfer
    heard: float
    rate: Rate = field(default_factory=Rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that has happened."""

    at: float
    """Seconds since the epoch."""
    text: str
    """Visible characters only."""
    is_bad: bool = False

    def __str__(self) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(self.at))} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is in the store, and what fits in."""

    images: int
    size: int
    waiting: int
    """Images without data."""
    free: int | None


@dataclass(slots=True, kw_only=True)
class Happenings:
    """What is known at the moment."""

    title: str
    data: str
    started: float = field(default_factory=time.monotonic)
    addresses: list[tuple[str, str]] = field(default_factory=list)
    """Name and address of each door that answers."""
    remarks: list[str] = field(default_factory=list)
    held: Held | None = None
    moving: dict[tuple[int, int], Moving] = field(default_factory=dict)
    reading: Rate = field(default_factory=Rate)
    """Of the mount, where reads belong to no transfer."""
    past: deque[Happening] = field(default_factory=lambda: deque(maxlen=_KEPT))
    counts: dict[bool, tuple[int, int]] = field(default_factory=lambda: {True: (0, 0), False: (0, 0)})
    """How many uploads (True) and downloads were done, and their bytes."""
    is_ending: bool = False

    def take(self, pid: int, sample: Sample, now: float) -> list[Happening]:
        """Take what a process says of its transfers; gives what has happened by that."""
        seen = set()
        for transfer in sample.under_way:
            key = (pid, transfer.key)
            known = self.moving.get(key)
            if known is None or transfer.done < known.transfer.done:
                known = self.moving[key] = Moving(transfer, now)
                known.rate.note(now - transfer.seconds, 0)
            known.transfer, known.heard = transfer, now
            known.rate.note(now, transfer.done)
            seen.add(key)
        for key in [key for key in self.moving if key[0] == pid and key not in seen]:
            del self.moving[key]
        if sample.read:
            self.reading.note(now, sample.read)
        return [self._ended(transfer) for transfer in sample.ended]

    def forget(self, now: float, *, pid: int | None = None) -> None:
        """Drop what dead processes were moving: those that said nothing for a while, or the one that is known so."""
        for key, moving in list(self.moving.items()):
            if key[0] == pid or now - moving.heard > _SILENT:
                del self.moving[key]

    def add(self, text: str, *, is_bad: bool = False) -> Happening:
        """Take note that something has happened."""
        happening = Happening(at=time.time(), text=visible(text), is_bad=is_bad)
        self.past.append(happening)
        return happening

    def transfers(self) -> Sequence[Moving]:
        """Give what is under way, the oldest first."""
        return sorted(self.moving.values(), key=lambda moving: -moving.transfer.seconds)

    def summary(self) -> str:
        """Say what was moved altogether."""
        said = []
        for is_upload, word in ((True, "upload"), (False, "download")):
            count, size = self.counts[is_upload]
            if count:
                said.append(f"{count} {word}{'' if count == 1 else 's'} ({human_size(size)})")
        return f"Ended after {span(time.monotonic() - self.started)}{': ' if said else ''}{', '.join(said)}."

    def _ended(self, transfer: Transfer) -> Happening:
        what = f"{'upload' if transfer.is_upload else 'download'} of {transfer.name}"
        if transfer.outcome != "done":
            return self.add(f"{what} failed after {human_size(transfer.done)}", is_bad=True)
        count, size = self.counts[transfer.is_upload]
        self.counts[transfer.is_upload] = (count + 1, size + transfer.done)
        rate = human_size(int(transfer.done / transfer.seconds)) if transfer.seconds else "0 B"
        return self.add(f"{what}: {human_size(transfer.done)} in {transfer.seconds:.1f} s, {rate}/s")


def span(seconds: float) -> str:
    """Say how long something lasts, in the two largest units that say it: ``2 h 5 min``."""
    whole = round(seconds)
    for size, unit, rest_size, rest_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // rest_size} {rest_unit}"
    return f"{whole} s"
