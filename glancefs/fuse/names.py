# SPDX-License-Identifier: Apache-2.0
"""What is at a name, as far as that is known without a look.

A mount that hears of others' changes in time knows what its inodes stand for, and of a folder that it has made itself,
or has read whole, also what is not there.

Answers for when that is known. Knows neither the registry nor the kernel.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from typing import Final

import trio

from glancefs.fuse.changes import Watcher
from glancefs.fuse.inodes import Inode, Inodes
from glancefs.namesakes import has_their_form

_OWN: Final = ".glance"


class Names:
    """The names of one view of the mount."""

    def __init__(self, *, inodes: Inodes, watcher: Watcher, absent_for: float) -> None:
        """``absent_for``: for how many seconds the kernel remembers that nothing is at a name."""
        self._inodes: Final = inodes
        self._watcher: Final = watcher
        self._absent_for: Final = absent_for

    def known(self, path: str) -> Inode | None:
        """Give what is known to be at a path, while others' changes are being followed."""
        inode = self._inodes.at(path)
        if inode is None or inode.is_gone or path.partition("/")[0] == _OWN or not self._watcher.is_fresh:
            return None
        return inode

    def is_free(self, folder: int, path: str) -> bool:
        """Say whether nothing can be at a path, while others' changes are being followed: it has no inode."""
        known = self._inodes.get(folder)
        if known is None or not known.is_whole or has_their_form(path):
            return False
        return self._watcher.is_fresh and self._inodes.at(path) is None

    def tell_free(self, path: str) -> float:
        """Take note that the kernel is told that nothing is there, and give for how many seconds."""
        self._watcher.was_absent(path, until=trio.current_time() + self._absent_for)
        return self._absent_for
