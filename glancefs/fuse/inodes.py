# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of the tree: a number, a path and the attributes for everything that it has looked up.

Answers for exact lookup counts (a forgotten inode is freed, one that is known is not), for which path an inode has, and
for keeping one number for one file while it turns from a staged file into an image. Attributes are answered from here,
without a look at the registry. Does not ask the tree for anything.

A listing of 100,000 images makes as many inodes, so an inode keeps what `stat` needs and no more; whole entries are
kept for the latest few only. What was listed and not asked for since is kept as it was listed, and becomes an `Inode`
when something asks for it: that spares most of the work for most of them.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from glancefs.fuse.statistics import Statistics
from glancefs.tree import Entry, EntryKind, Listed
from glancefs.tree.entries import FILE_MODE, inode_number

if TYPE_CHECKING:
    from glancefs.fuse.staged import StagedFile

ROOT: Final = 1
ROOT_KEY: Final = "folder:"
_RECENT: Final = 4096
"""Of how many inodes the whole entry is kept."""
_NUMBERS: Final = 16_384
"""Of how many images that were files of this mount the file's number is kept."""


@dataclass(slots=True, kw_only=True, eq=False)
class Inode:
    """Something that the kernel has looked up."""

    ino: int
    key: str
    path: str
    kind: EntryKind
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    mode: int = 0
    allocated: int = 0
    owner: str | None = None
    """Of an image: whose it is."""
    is_public: bool = False
    revision: int = 0
    """Of an image: the latest of its changes that is known here."""
    lookups: int = 0
    """How many times the kernel was told of it, less what it has forgotten."""
    uses: int = 0
    """By how many of our own open files and running requests it is held."""
    is_gone: bool = False
    """Removed; whoever has it open goes on."""
    is_whole: bool = False
    """For a folder: everything that is in it has an inode, so nothing else has to be looked for."""
    file: StagedFile | None = None
    """The staged file that it is, or was until it became an image."""
    other_keys: list[str] = field(default_factory=list)


class Inodes:
    """The inodes of one mount; the root is always there."""

    def __init__(self, *, statistics: Statistics) -> None:
        self._statistics: Final = statistics
        self.root: Final = Inode(ino=ROOT, key=ROOT_KEY, path="", kind=EntryKind.FOLDER, mode=0o755, lookups=1)
        self._by_number: Final[dict[int, Inode | Listed]] = {ROOT: self.root}
        self._by_path: Final[dict[str, Inode | Listed]] = {"": self.root}
        self._told_again: Final[dict[int, int]] = {}
        """How many times more than once the kernel was told of what is kept as it was listed."""
        self._bound: Final[dict[str, Inode]] = {ROOT_KEY: self.root}
        self._recent: Final[OrderedDict[int, Entry]] = OrderedDict()
        # The kernel forgets what it likes, and all of it whenever a name is taken back.
        self._numbers: Final[OrderedDict[str, int]] = OrderedDict()
        self._looked_at: Final[dict[str, bool]] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, ino: int) -> Inode | None:
        """Give the inode of this number."""
        return self._inode(self._by_number.get(ino))

    def at(self, path: str) -> Inode | None:
        """Give the inode that is known to be at a path."""
        return self._inode(self._by_path.get(path))

    def of_key(self, key: str) -> Inode | None:
        """Give the inode of what has this `Entry.key`."""
        if (bound := self._bound.get(key)) is not None:
            return bound
        known = self._by_number.get(inode_number(key))
        # A folder that was moved keeps its number, which is not that of what is made where it was.
        return self._inode(known) if known is not None and known.key == key else None

    def _inode(self, known: Inode | Listed | None) -> Inode | None:
        return self._make_of(known) if isinstance(known, Listed) else known

    def _make_of(self, listed: Listed) -> Inode:
        """Make the inode of what was listed."""
        inode = Inode(ino=listed.ino, key=listed.key, path=listed.path, kind=listed.kind, mode=FILE_MODE)
        inode.lookups = 1 + self._told_again.pop(listed.ino, 0)
        _take_over(inode, listed)
        self._by_number[listed.ino] = inode
        if self._by_path.get(listed.path) is listed:
            self._by_path[listed.path] = inode
        return inode

    # ---- what the tree told

    def see(self, entry: Entry, *, allocated: int, is_listed: bool = False) -> Inode:
        """Give the inode for an entry, made or brought up to date; the kernel is not yet told of it."""
        inode = self.of_key(entry.key)
        if inode is None:
            inode = self._new(inode_number(entry.key), entry.key, entry.path, entry.kind)
        elif inode.path != entry.path or inode.is_gone:
            self.move(inode, entry.path)
        self.refresh(inode, entry, allocated=allocated)
        if not is_listed:
            self.remember(inode, entry)
        return inode

    def number_of(self, listed: Listed) -> int:
        """Give the inode number of what was listed: its own, or that of the file of this mount which it once was."""
        inode = self._bound.get(listed.key)
        return self._numbers.get(listed.key, listed.ino) if inode is None else inode.ino

    def see_listed(self, images: Sequence[Listed]) -> None:
        """Note that the kernel was told of images, as they were listed."""
        by_number, by_path, bound, numbers = self._by_number, self._by_path, self._bound, self._numbers
        for listed in images:
            if listed.ino in by_number or listed.key in bound or listed.key in numbers:
                self._see_again(listed)
            else:
                by_number[listed.ino] = by_path[listed.path] = listed
        if self._looked_at:
            for listed in images:
                self._stir(listed.path)
        self._statistics.inodes = len(by_number)

    def _see_again(self, listed: Listed) -> None:
        known = self._bound.get(listed.key) or self._by_number.get(listed.ino)
        if isinstance(known, Listed) and known.path == listed.path:
            self._by_number[listed.ino] = self._by_path[listed.path] = listed
            self._told_again[listed.ino] = self._told_again.get(listed.ino, 0) + 1
            return
        inode = self._inode(known)
        if inode is None:
            inode = self._new(listed.ino, listed.key, listed.path, listed.kind)
            inode.mode = FILE_MODE
        elif inode.path != listed.path or inode.is_gone:
            self.move(inode, listed.path)
        _take_over(inode, listed)
        inode.lookups += 1

    def _new(self, own_number: int, key: str, path: str, kind: EntryKind) -> Inode:
        number = self._numbers.get(key, own_number)
        for turn in count(1):
            if number not in self._by_number:
                break
            number = inode_number(f"{key}\0{turn}")
        inode = self._by_number[number] = Inode(ino=number, key=key, path=path, kind=kind)
        self._put(path, inode)
        self._statistics.inodes = len(self._by_number)
        if number != own_number:
            self.bind(key, inode)
        return inode

    def make(self, key: str, path: str, kind: EntryKind) -> Inode:
        """Make an inode for a file to be; nothing is at its path before `move` says so."""
        number = inode_number(key)
        inode = self._by_number[number] = Inode(ino=number, key=key, path=path, kind=kind, mode=0o644)
        self._statistics.inodes = len(self._by_number)
        return inode

    def refresh(self, inode: Inode, entry: Entry, *, allocated: int) -> None:
        """Take an entry's attributes over."""
        if inode.ino == ROOT:
            inode.mtime_ns, inode.ctime_ns = entry.mtime_ns, entry.ctime_ns
            return
        if entry.key != inode.key and entry.key not in inode.other_keys:
            self.bind(entry.key, inode)
        inode.is_gone = False
        inode.kind = entry.kind
        inode.size = entry.size
        inode.mtime_ns = entry.mtime_ns
        inode.ctime_ns = entry.ctime_ns
        inode.mode = entry.mode
        inode.allocated = allocated
        if entry.image is not None:
            inode.owner, inode.is_public = entry.image.owner, entry.image.is_public
            inode.revision = entry.image.revision

    def remember(self, inode: Inode, entry: Entry) -> None:
        """Keep an inode's whole entry, for a while."""
        self._recent[inode.ino] = entry
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def entry_of(self, inode: Inode) -> Entry | None:
        """Give the entry that was remembered."""
        return self._recent.get(inode.ino)

    def distrust(self, inode: Inode) -> None:
        """Forget the entry that was remembered: it has changed."""
        self._recent.pop(inode.ino, None)

    def bind(self, key: str, inode: Inode) -> None:
        """Let an inode stand for another key too: a staged file's, and then that of the image which it became."""
        other = self._bound.get(key)
        if other is not None and other is not inode:
            other.other_keys.remove(key)
        self._bound[key] = inode
        if key not in inode.other_keys:
            inode.other_keys.append(key)

    # ---- where things are

    def move(self, inode: Inode, path: str) -> None:
        """Say that an inode is at this path from here on, and whatever was there is not."""
        self._take(inode)
        inode.path = path
        inode.is_gone = False
        self._put(path, inode)
        self.distrust(inode)

    def move_below(self, old: str, new: str) -> None:
        """Say that a folder was moved, and all below it; each folder keeps its number under its new key."""
        below = f"{old}/"
        found = [known for path, known in self._by_path.items() if path == old or path.startswith(below)]
        for inode in [self._make_of(known) if isinstance(known, Listed) else known for known in found]:
            self.move(inode, new + inode.path[len(old) :])
            inode.is_whole = False
            if inode.kind is EntryKind.FOLDER:
                self._name_anew(inode, f"folder:{inode.path}")

    def _name_anew(self, inode: Inode, key: str) -> None:
        """Let an inode stand for this key alone."""
        for other in inode.other_keys:
            if self._bound.get(other) is inode:
                del self._bound[other]
        inode.other_keys.clear()
        inode.key = key
        self.bind(key, inode)

    def leave(self, path: str) -> None:
        """Say that nothing is known to be at a path, without saying that what was there is gone."""
        self.doubt(path)
        self._stir(path)
        self._by_path.pop(path, None)

    def doubt(self, path: str) -> None:
        """Say that something may be at a path that has no inode."""
        folder = self.at(path.rpartition("/")[0])
        if folder is not None:
            folder.is_whole = False

    def lose(self, inode: Inode) -> None:
        """Say that an inode is gone: nothing is at its path, and who has it open goes on."""
        if inode.ino == ROOT:
            return
        self._take(inode)
        inode.is_gone = True
        self.distrust(inode)

    def _put(self, path: str, inode: Inode) -> None:
        self._stir(path)
        self._by_path[path] = inode

    def _take(self, inode: Inode) -> None:
        if self._by_path.get(inode.path) is inode:
            self._stir(inode.path)
            del self._by_path[inode.path]

    # ---- what changes while somebody looks

    def watch(self, path: str) -> None:
        """Notice from here on, until `has_stirred` is asked, when something else comes to be at a path, or goes."""
        self._looked_at[path] = False

    def has_stirred(self, path: str) -> bool:
        """Tell whether that was so; what was looked up meanwhile may be older than what is known here."""
        return self._looked_at.pop(path, False)

    def _stir(self, path: str) -> None:
        if path in self._looked_at:
            self._looked_at[path] = True

    # ---- what the kernel holds

    def count(self, inode: Inode) -> None:
        """Count that the kernel is told of an inode once more."""
        inode.lookups += 1

    def forget(self, ino: int, lookups: int) -> Inode | None:
        """Take back what was counted. Gives the inode if it was freed; an unknown number is fine."""
        known = self._by_number.get(ino)
        if isinstance(known, Listed) and lookups > self._told_again.get(ino, 0):
            self._forget_listed(known)
            return None
        inode = self._inode(known)
        if inode is None or ino == ROOT:
            return None
        inode.lookups = max(0, inode.lookups - lookups)
        return inode if self.free_if_unused(inode) else None

    def _forget_listed(self, listed: Listed) -> None:
        del self._by_number[listed.ino]
        self._told_again.pop(listed.ino, None)
        if self._by_path.get(listed.path) is listed:
            self.leave(listed.path)
        self._statistics.inodes = len(self._by_number)

    def free_if_unused(self, inode: Inode) -> bool:
        """Free an inode that neither the kernel nor an open file holds."""
        if inode.lookups or inode.uses or inode.ino == ROOT:
            return False
        if self._by_number.get(inode.ino) is inode:
            del self._by_number[inode.ino]
        if self._by_path.get(inode.path) is inode:
            del self._by_path[inode.path]
            self.doubt(inode.path)
        for key in inode.other_keys:
            if self._bound.get(key) is inode:
                del self._bound[key]
                self._keep_number(key, inode)
        self.distrust(inode)
        self._statistics.inodes = len(self._by_number)
        return True

    def _keep_number(self, key: str, inode: Inode) -> None:
        # A folder is what is at its path, whatever was there before.
        if inode.kind is EntryKind.FOLDER or inode_number(key) == inode.ino:
            return
        self._numbers[key] = inode.ino
        if len(self._numbers) > _NUMBERS:
            self._numbers.popitem(last=False)

    def __iter__(self) -> Iterator[Inode]:
        for known in list(self._by_number.values()):
            yield self._make_of(known) if isinstance(known, Listed) else known


def _take_over(inode: Inode, listed: Listed) -> None:
    inode.is_gone = False
    inode.kind = listed.kind
    inode.size = listed.size
    inode.mtime_ns = listed.mtime_ns
    inode.ctime_ns = listed.ctime_ns
    inode.allocated = listed.allocated
    inode.owner, inode.is_public = listed.owner, listed.is_public
