# SPDX-License-Identifier: Apache-2.0
"""What the kernel is to be told: names and attributes that are no longer what it remembers.

Answers for collecting such notices and for handing them over. Does not know why something has changed.

Threading: collected on the loop's thread; `tell` is called in a thread of its own lane, since the kernel may wait for a
lock that a request holds which waits for us.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pyfuse3

from glancefs.fuse.inodes import Inodes


@dataclass(slots=True)
class Notices:
    """What the kernel is to be told at once."""

    names: list[tuple[int, bytes]] = field(default_factory=list)
    """In which folder, by its inode number, which name no longer means what it did."""
    attributes: list[int] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names) + len(self.attributes) + len(self.contents)

    def name(self, inodes: Inodes, path: str) -> None:
        """Add that a path no longer means what it did; where the kernel does not know the folder, nothing is to do."""
        parent, _, name = path.rpartition("/")
        folder = inodes.at(parent)
        if folder is not None and name:
            self.names.append((folder.ino, name.encode()))

    def tell(self) -> None:
        """Tell the kernel; what it does not know, it need not forget."""
        for ino in self.attributes:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_inode(ino, attr_only=True)
        for ino in self.contents:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_inode(ino, attr_only=False)
        for parent, name in self.names:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_entry(parent, name)
