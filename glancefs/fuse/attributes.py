# SPDX-License-Identifier: Apache-2.0
"""Attributes as stat(2) shows them: what an inode knows, and what the mount says of owners, modes and times to live.

Answers for the translation alone.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyfuse3 import EntryAttributes, StatvfsData

from glancefs.fuse.inodes import Inode
from glancefs.fuse.users import Ids, Users
from glancefs.stores.base import Space
from glancefs.tree import EntryKind, Listed
from glancefs.tree.entries import FILE_MODE

BEST_REQUEST: Final = 1 << 20
"""st_blksize: cp, cat and tar read and write in pieces of this size, in bytes."""

_BEST_LISTING: Final = 1 << 16
"""The same of folders: the C library asks for so much of one at a time, and who lists works while more is fetched."""

LONGEST_NAME: Final = 255
_BLOCK: Final = 512
_STATFS_BLOCK: Final = 4096
_UNKNOWN_SPACE: Final = 1 << 60

_FILE_TYPES: Final = {EntryKind.FOLDER: stat.S_IFDIR, EntryKind.LINK: stat.S_IFLNK}
_OWNED: Final = frozenset({EntryKind.IMAGE, EntryKind.QUEUED, EntryKind.STAGED})
_OPEN_FOLDER: Final = 0o777
_PRIVATE: Final = 0o600
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
        shown.st_blksize = _BEST_LISTING if kind is EntryKind.FOLDER else BEST_REQUEST
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

    def fill_in(self, shown: EntryAttributes, ino: int, listed: Listed) -> None:
        """Make the attributes of one image out of what `listing` gave; they are copied when they are told."""
        shown.st_ino = ino
        shown.st_size = listed.size
        shown.st_blocks = -(-listed.allocated // _BLOCK)
        shown.st_mtime_ns = shown.st_atime_ns = listed.mtime_ns
        shown.st_ctime_ns = listed.ctime_ns

    @property
    def shares_names(self) -> bool:
        """Whether everybody sees the same names."""
        return True

    def prepare(self, owners: Iterable[str | None]) -> None:
        """Find out what attributes of images of these owners take, in the thread that has looked for them."""

    def nothing(self) -> EntryAttributes:
        """Say that there is nothing at a name, and that the kernel may remember it."""
        shown = EntryAttributes()
        shown.st_ino = 0
        shown.entry_timeout = self.entry_timeout
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAppearance(Appearance):
    """What a mount says of its files on which everybody acts as themselves.

    An image is its owner's, and closed to others unless it is public: whatever the kernel remembers of it is guarded by
    that. No name is remembered, so that each walk along a path asks as the one who walks. All users are told the same
    of an image, since the kernel has one inode for all of them. Folders are open to everybody: what may be made and
    removed in them, the tree decides.
    """

    users: Users
    me: Ids
    """Who looks: whose the files are that are not yet images."""

    def prepare(self, owners: Iterable[str | None]) -> None:
        """Find out who the owners are on this machine."""
        for owner in set(owners):
            self.users.learn(owner)

    def listing(self) -> EntryAttributes:
        """See `Appearance.listing`."""
        shown = Appearance.listing(self)
        shown.entry_timeout = 0
        return shown

    def fill_in(self, shown: EntryAttributes, ino: int, listed: Listed) -> None:
        """See `Appearance.fill_in`."""
        Appearance.fill_in(self, shown, ino, listed)
        ids = self.users.ids_of(listed.owner)
        shown.st_uid, shown.st_gid = ids.uid, ids.gid
        is_open = listed.kind is EntryKind.IMAGE and listed.is_public
        shown.st_mode = stat.S_IFREG | ((FILE_MODE if is_open else _PRIVATE) & ~self.umask)
        shown.attr_timeout = self.attr_timeout if is_open else 0

    @property
    def shares_names(self) -> bool:
        """See `Appearance.shares_names`."""
        return False

    def attributes(self, inode: Inode) -> EntryAttributes:
        """Give an inode's attributes."""
        shown = Appearance.attributes(self, inode)
        shown.entry_timeout = 0
        kind = inode.kind
        if kind is EntryKind.FOLDER:
            shown.st_mode = stat.S_IFDIR | (_OPEN_FOLDER & ~self.umask)
        elif kind in _OWNED:
            ids = self.me if kind is EntryKind.STAGED else self.users.ids_of(inode.owner)
            shown.st_uid, shown.st_gid = ids.uid, ids.gid
            if kind is not EntryKind.IMAGE or not inode.is_public:
                shown.st_mode = stat.S_IFREG | (_PRIVATE & ~self.umask)
                shown.attr_timeout = 0
        return shown


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
