# SPDX-License-Identifier: Apache-2.0
"""Opening an available image to write it anew, without a reader of the old one noticing.

The kernel keeps size and pages by inode, so the new file must be another inode than the old one. A program that opens
an image with O_TRUNC is answered ESTALE once; Linux then looks the path up anew (do_filp_open, LOOKUP_REVAL) for the
same task, is given an inode of its own for the file to be, and opens that. Everybody else goes on seeing the old image
at the path until the new one is complete.

Answers for which task is to be given which inode. Opens nothing.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from glancefs.fuse.inodes import Inode, Inodes
from glancefs.tree import EntryKind

_MOST: Final = 256
"""How many tasks may be between the two steps at once; they take microseconds."""


class Replacements:
    """The images of a mount that somebody is about to write anew."""

    def __init__(self, *, inodes: Inodes, numbers: Iterator[int]) -> None:
        self._inodes: Final = inodes
        self._asked: Final[OrderedDict[int, str]] = OrderedDict()
        self._numbers: Final = numbers
        self._given: Final[dict[int, Inode]] = {}
        self._under_way: Final[dict[str, Inode]] = {}

    def ask(self, task: int, path: str) -> None:
        """Say that a task, which is to be answered ESTALE, opens the image at a path to write it anew."""
        self._asked[task] = path
        if len(self._asked) > _MOST:
            self._asked.popitem(last=False)

    def give(self, task: int, inode: Inode) -> Inode | None:
        """Give the inode of the file to be, to the task that asked, and only to it."""
        if not self._asked or self._asked.get(task) != inode.path or inode.kind is not EntryKind.IMAGE:
            return None
        new = self._under_way.get(inode.key)
        if new is not None and new.file is not None and new.file.is_staged:
            return new
        new = self._inodes.make(f"replacement:{next(self._numbers)}", inode.path, EntryKind.STAGED)
        self._given[new.ino] = inode
        return new

    def take(self, task: int, inode: Inode) -> Inode | None:
        """Give the inode of the image that is to be replaced through this one, at its first open."""
        self._asked.pop(task, None)
        replaced = self._given.pop(inode.ino, None)
        if replaced is not None:
            self._under_way[replaced.key] = inode
        return replaced

    def forget(self, inode: Inode) -> None:
        """Let go of an inode that the kernel has forgotten."""
        self._given.pop(inode.ino, None)
        for key in [key for key, other in self._under_way.items() if other is inode]:
            del self._under_way[key]
