# SPDX-License-Identifier: Apache-2.0
"""Attributes as stat(2) shows them: what an inode knows, and what the mount says of owners, modes and times to live.

Answers for the translation alone.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Final

from pyfuse3 import EntryAttributes, StatvfsData

from glancefs.fuse.inodes import Inode
from glancefs.stores.base import Space
from glancefs.tree import EntryKind, Listed
from glancefs.tree.entries import FILE_MODE

BEST_REQUEST: Final = 1 << 20
"""st_blksize: cp, cat and tar read and write in pieces of this size, in bytes."""

LONGEST_NAME: Final = 255
_BLOCK: Final = 512
_STATFS_BLOCK: Final = 4096
_UNKNOWN_SPACE: Final = 1 << 60

_FILE_TYPES: Final = {EntryKind.FOLDER: stat.S_IFDIR, EntryKind.LINK: stat.S_IFLNK}
_ALWAYS_ASKED: Final = frozenset({EntryKind.STAGED, EntryKind.DOCUMENT})
"""What changes without the kernel's doing, or without an entry in the change feed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appearance:
    """What a mount says of all its files alike."""

    uid: int
    gid: int
    umask: int = 0o022
    attr_timeout: float = 60.0
    """Seconds for which the kernel may answer stat(2) itself; a change through any door ends it at once."""
    entry_timeout: float = 1.0
    """Seconds for which the kernel may take a name for what it was."""

    def attributes(self, inode: Inode) -> EntryAttributes:
        """Give an inode's attributes."""
        shown = EntryAttributes()
        kind = inode.kind
        shown.st_ino = inode.ino
        shown.st_mode = _FILE_TYPES.get(kind, stat.S_IFREG) | (inode.mode & ~self.umask)
        shown.st_nlink = 0 if inode.is_gone else 1
        shown.st_uid = self.uid
        shown.st_gid = self.gid
        shown.st_blksize = BEST_REQUEST
        file = inode.file
        if file is not None and kind is EntryKind.STAGED:
            shown.st_size = file.size
            shown.st_blocks = -(-file.upload.allocated() // _BLOCK)
            entry = file.entry
            shown.st_mtime_ns = shown.st_atime_ns = entry.mtime_ns
            shown.st_ctime_ns = entry.ctime_ns
        else:
            shown.st_size = inode.size
            shown.st_blocks = -(-inode.allocated // _BLOCK)
            shown.st_mtime_ns = shown.st_atime_ns = inode.mtime_ns
            shown.st_ctime_ns = inode.ctime_ns
        is_asked = kind in _ALWAYS_ASKED
        shown.attr_timeout = 0 if is_asked else self.attr_timeout
        shown.entry_timeout = 0 if is_asked else self.entry_timeout
        return shown

    def listing(self) -> EntryAttributes:
        """Give what all images of a listing have in common, for `fill_in`."""
        shown = EntryAttributes()
        shown.st_mode = stat.S_IFREG | (FILE_MODE & ~self.umask)
        shown.st_nlink = 1
        shown.st_uid = self.uid
        shown.st_gid = self.gid
        shown.st_blksize = BEST_REQUEST
        shown.attr_timeout = self.attr_timeout
        shown.entry_timeout = self.entry_timeout
        return shown

    def nothing(self) -> EntryAttributes:
        """Say that there is nothing at a name, and that the kernel may remember it."""
        shown = EntryAttributes()
        shown.st_ino = 0
        shown.entry_timeout = self.entry_timeout
        return shown


def fill_in(shown: EntryAttributes, ino: int, listed: Listed) -> None:
    """Make the attributes of one image out of what `Appearance.listing` gave; they are copied when they are told."""
    shown.st_ino = ino
    shown.st_size = listed.size
    shown.st_blocks = -(-listed.allocated // _BLOCK)
    shown.st_mtime_ns = shown.st_atime_ns = listed.mtime_ns
    shown.st_ctime_ns = listed.ctime_ns


def file_system(space: Space | None) -> StatvfsData:
    """Tell the room there is; without a limit where the store does not say."""
    total, free = (space.total, space.free) if space else (_UNKNOWN_SPACE, _UNKNOWN_SPACE)
    shown = StatvfsData()
    shown.f_bsize = shown.f_frsize = _STATFS_BLOCK
    shown.f_blocks = total // _STATFS_BLOCK
    shown.f_bfree = shown.f_bavail = free // _STATFS_BLOCK
    shown.f_files = shown.f_ffree = shown.f_favail = 0
    shown.f_namemax = LONGEST_NAME
    return shown
