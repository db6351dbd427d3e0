# SPDX-License-Identifier: Apache-2.0
"""A staged file as the mount sees it: who has it open, and what is not written into it yet.

Answers for that state alone. When it becomes an image, `glancefs.fuse.publishing` decides; its bytes are kept by
`glancefs.staging`.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glancefs.fuse.finality import Opener
from glancefs.fuse.inodes import Inode
from glancefs.fuse.turn import Turn
from glancefs.fuse.windows import WriteWindow
from glancefs.reporting import Transfer
from glancefs.staging import StagedState, StagedUpload
from glancefs.tree import Entry
from glancefs.tree.attributes import PROPERTY, unsaying
from glancefs.tree.entries import MTIME, image_entry, staged_entry

if TYPE_CHECKING:
    import trio


@dataclass(slots=True, kw_only=True, eq=False)
class StagedFile:
    """One staged file of this mount, or what it was until it became an image."""

    upload: StagedUpload
    inode: Inode
    window: WriteWindow
    turn: Turn = field(default_factory=Turn)
    """Held while it is decided what becomes of the file."""
    handles: int = 0
    writers: int = 0
    """Handles for writing of which the last close has not come."""
    settling: trio.CancelScope | None = None
    hides: Entry | None = None
    """The image whose place it is to take, which others see at its path until then."""
    started: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Its size, with what is not written yet."""
        return max(self.upload.size, self.window.end)

    @property
    def is_staged(self) -> bool:
        """Whether it can still become an image."""
        return self.upload.state in {StagedState.STAGED, StagedState.FAILED}

    @property
    def is_published(self) -> bool:
        """Whether it has become an image."""
        return self.upload.state is StagedState.PUBLISHED

    @property
    def entry(self) -> Entry:
        """What the tree would say of it."""
        image = self.upload.image
        if self.is_published and image is not None:
            return image_entry(self.inode.path, image, is_changeable=True)
        return staged_entry(self.inode.path, self.upload)

    def transfer(self, outcome: str = "") -> Transfer:
        """Tell of the data that were written so far; how many it will be, only the end tells."""
        return Transfer(
            key=self.inode.ino,
            name=self.upload.path,
            is_upload=True,
            done=self.size,
            size=None,
            seconds=time.monotonic() - self.started,
            outcome=outcome,
        )

    def change(self) -> None:
        """Say that its data change from here on: a time that was set before is not theirs.

        Raises StoreFull, StoreUnavailable when that can't be kept.
        """
        said = self.upload.said
        if MTIME in said.properties:
            self.upload.know(said=unsaying(said, f"{PROPERTY}{MTIME}"))

    def wake(self) -> None:
        """Say that somebody works on it again: it is not settled."""
        if self.settling is not None:
            self.settling.cancel()
            self.settling = None


@dataclass(slots=True, kw_only=True, eq=False)
class Writer:
    """One open file through which a staged file is written."""

    file: StagedFile
    opener: Opener
    is_read_write: bool
    """Programs that read and write close and open again, so their closes say little."""
    is_closed: bool = False

    def open(self) -> None:
        """Count it in, at first and when something is written through it after its last close."""
        self.file.wake()
        self.file.writers += 1
        self.is_closed = False

    def close(self) -> None:
        """Count it out."""
        if not self.is_closed:
            self.is_closed = True
            self.file.writers -= 1
