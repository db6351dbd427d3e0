# SPDX-License-Identifier: Apache-2.0
"""What is at a path of the tree, as a value with the attributes that a file has.

Answers for sizes, times and identities of entries. Does not know owners of files, umasks and the rest of a mount.

Threading: values are frozen; what they say of a staged file is as it was when they were made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import blake2b
from typing import Final

from glancefs.model import Image, ImageStatus
from glancefs.staging import StagedUpload

MTIME: Final = "mtime"
"""The property that keeps the time of modification: seconds since the epoch, decimal."""

_BILLION: Final = 1_000_000_000


class EntryKind(Enum):
    """What is at a path."""

    IMAGE = "image"
    """An available image; its data never change."""
    QUEUED = "queued"
    """An image without data (queued, saving, killed), shown at its declared size; reads as zeros."""
    STAGED = "staged"
    """A file that is not yet an image, seen on this mount only."""
    FOLDER = "folder"
    LINK = "link"
    """A symbolic link below ``.glance``; its target is asked for with `ImageTree.read_link`."""
    DOCUMENT = "document"
    """A generated, read-only text below ``.glance``; its text is asked for with `ImageTree.read_document`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is at a path."""

    path: str
    """From the root of the tree, without a leading slash; ``""`` is the root."""
    kind: EntryKind
    key: str
    """What it is, whatever its path: ``image:ID``, ``staged:KEY``, ``folder:PATH``, ``link:PATH``, ``document:PATH``."""
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    mode: int = 0o644
    """Permission bits only, before the mount's umask."""
    image: Image | None = None
    staged: StagedUpload | None = None
    is_changeable: bool = True
    """Whether the caller may remove and rename it."""

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def ino(self) -> int:
        """A number for it that is the same on every mount and after every remount: 62 bits, never 0 or 1."""
        return inode_number(self.key)


def inode_number(key: str) -> int:
    """Give the inode number of what has this `Entry.key`."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 2 | 2
