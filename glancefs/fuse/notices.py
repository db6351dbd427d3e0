# SPDX-License-Identifier: Apache-2.0
"""What the kernel is to be told: names and attributes that are no longer what it remembers.

Answers for collecting such notices and for handing them over. Does not know why something has changed.

Taking a single name back makes the kernel wait for the lock of its folder, which a request may hold that waits for us.
If the mount is killed at that moment, that thread can't die before the request is answered, which nobody will do: the
programs hang for good (fuse_reverse_inval_entry). Since Linux 6.16 all names can be taken back at once, without a lock;
what is still known is then told from memory when it is asked for.

Threading: collected on the loop's thread; `Kernel.tell` is called in a thread of its own lane, since it may wait as
described.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyfuse3

from glancefs.fuse.inodes import Inodes

_DEVICE: Final = "/dev/fuse"
_HEADER: Final = struct.Struct("=IiQ")
"""struct fuse_out_header of linux/fuse.h: length, code, and 0 for what is no answer."""
_INCREASE_EPOCH: Final = 8
"""FUSE_NOTIFY_INC_EPOCH: names that were told before are to be asked for anew."""


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


class Kernel:
    """The kernel's side of the mount of this process."""

    def __init__(self) -> None:
        self.device: int | None = None
        """The descriptor through which the kernel is answered; none without a mount."""
        self._has_epochs = True

    def attach(self) -> None:
        """Find the way to the kernel, once there is a mount."""
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()) == _DEVICE:
                    self.device = int(entry.name)

    def tell(self, notices: Notices) -> None:
        """Tell it; what it does not know, it need not forget."""
        for ino in notices.attributes:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_inode(ino, attr_only=True)
        for ino in notices.contents:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_inode(ino, attr_only=False)
        if not notices.names or self._take_all_names_back():
            return
        for parent, name in notices.names:
            with contextlib.suppress(OSError):
                pyfuse3.invalidate_entry(parent, name)

    def _take_all_names_back(self) -> bool:
        if self.device is None or not self._has_epochs:
            return False
        try:
            os.write(self.device, _HEADER.pack(_HEADER.size, _INCREASE_EPOCH, 0))
        except OSError:
            # An older kernel.
            self._has_epochs = False
            return False
        return True
