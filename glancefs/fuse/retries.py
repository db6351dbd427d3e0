# SPDX-License-Identifier: Apache-2.0
"""Opening an image at the moment at which another one takes its place.

Between finding a name and opening what it leads to, an image may be replaced, and its data are gone. The open is
answered ESTALE, and Linux looks the path up anew (do_filp_open, LOOKUP_REVAL), but only once: whoever meets the next
replacement as well is told of it. So what the second look finds is opened there and then, for the task that looks.

Answers for which task looks again, and for holding what was opened until that task takes it. Opens nothing.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from glancefs.fuse.inodes import Inode
from glancefs.reader import DataReader

_MOST: Final = 64
"""How many tasks may be between an open and the next one; they take microseconds."""


@dataclass(frozen=True, slots=True)
class _Held:
    inode: Inode
    reader: DataReader


class Retries:
    """The tasks of a mount that were told to look again."""

    def __init__(self) -> None:
        self._told: Final[OrderedDict[int, str]] = OrderedDict()
        self._held: Final[dict[int, _Held]] = {}

    def expect(self, task: int, path: str) -> None:
        """Say that a task was told that what it found at a path is gone."""
        self._told[task] = path
        self._told.move_to_end(task)
        if len(self._told) > _MOST:
            forgotten, _ = self._told.popitem(last=False)
            self._let_go(forgotten)

    def is_expected(self, task: int, path: str) -> bool:
        """Say whether a task was told so of this path, and has not opened anything since.

        It may look twice: where it finds another inode than before, Linux asks again.
        """
        return bool(self._told) and self._told.get(task) == path

    def hold(self, task: int, inode: Inode, reader: DataReader) -> None:
        """Hold what was opened for a task, in place of what was held for it before."""
        self._let_go(task)
        self._held[task] = _Held(inode, reader)

    def take(self, task: int, inode: Inode) -> DataReader | None:
        """Give what is held for a task that opens this inode; it is not expected any more."""
        if not self._told or self._told.pop(task, None) is None:
            return None
        held = self._held.get(task)
        if held is not None and held.inode is inode:
            del self._held[task]
            return held.reader
        self._let_go(task)
        return None

    def finish(self) -> None:
        """Close what nobody came for."""
        for task in [*self._held]:
            self._let_go(task)

    def _let_go(self, task: int) -> None:
        held = self._held.pop(task, None)
        if held is not None:
            held.reader.close()
