# SPDX-License-Identifier: Apache-2.0
"""What others change, told to the kernel: its caches hold names and attributes of this mount's past.

Answers for following the tree's change feed, for bringing the inodes up to date, and for invalidating what the kernel
keeps of them. Content is never invalidated but where a queued image got its data: data of images do not change.

Threading: belongs to the loop's thread. The kernel is told in a thread of its own lane: it may wait for a lock that a
request holds which waits for us.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import trio

from glancefs.errors import GlancefsError, PathNotFound
from glancefs.fuse.bridge import Bridge
from glancefs.fuse.inodes import Inode, Inodes
from glancefs.fuse.notices import Kernel, Notices
from glancefs.fuse.staged import StagedFile
from glancefs.fuse.statistics import Statistics
from glancefs.model import Image, ImageStatus
from glancefs.namesakes import has_their_form
from glancefs.tree import Entry, EntryKind, ImageTree, TreeChange
from glancefs.tree.entries import mtime_of

_log = logging.getLogger(__name__)

INTERVAL: Final = 0.25
_LONGEST: Final = 1.0
"""How long a look at the feed waits for a word of the registry, in seconds."""

_GATHERING: Final = 0.02
_LOOKS: Final = 5
"""How often a folder is looked at that changes here meanwhile."""
_FOLDER: Final = "folder:"
_FRESH: Final = 2.0
"""Seconds since the last look at the feed, within which memory is as good as a look at the registry."""


class Watcher:
    """Follows the change feed of one mount."""

    def __init__(
        self,
        *,
        tree: ImageTree,
        bridge: Bridge,
        inodes: Inodes,
        kernel: Kernel,
        statistics: Statistics,
        interval: float = INTERVAL,
    ) -> None:
        self._tree: Final = tree
        self._bridge: Final = bridge
        self._inodes: Final = inodes
        self._kernel: Final = kernel
        self._statistics: Final = statistics
        self._interval: Final = interval
        self._looked_at = -_FRESH
        self._absent: dict[str, float] = {}
        self._has_failed = False

    @property
    def is_fresh(self) -> bool:
        """Whether what the inodes say is what the registry would say, but for the last moment."""
        return trio.current_time() - self._looked_at < _FRESH

    def is_there(self, path: str) -> None:
        """Note that something is at a path, and that the kernel knows."""
        self._absent.pop(path, None)

    def was_absent(self, path: str, *, until: float) -> None:
        """Note that the kernel was told that nothing is at a path, and remembers it until a time of the loop."""
        self._absent[path] = until

    async def run(self) -> None:
        """Follow the feed until cancelled; while it does not answer, memory is not trusted."""
        since: int | None = None
        while True:
            try:
                if since is None:
                    since = await self._bridge.look(self._tree.revision)
                since = await self._follow(since)
                self._looked_at = trio.current_time()
                self._has_failed = False
            except (GlancefsError, OSError, trio.TooSlowError) as error:
                if not self._has_failed:
                    _log.warning("others' changes can't be followed at present: %s", error)
                self._has_failed = True
            await self._wait()

    async def _wait(self) -> None:
        """Wait until others may have changed something: a registry that is told of it comes back at once."""
        if not self._tree.tells_of_changes or self._has_failed:
            await trio.sleep(self._interval)
            return
        await self._bridge.wait(self._tree.wait_for_change, max(self._interval, _LONGEST))
        # What comes one after the other is looked at together.
        await trio.sleep(_GATHERING)

    async def _follow(self, since: int) -> int:
        while True:
            piece = await self._bridge.look(self._tree.changes, since)
            notices = Notices()
            for change in piece.changes:
                if change.key.startswith(_FOLDER):
                    await self._apply_folder(change.paths[0], notices)
                else:
                    await self._until_made(change)
                    self._apply(change, notices)
            if len(notices):
                self._statistics.invalidated += len(notices)
                await self._bridge.notify(partial(self._kernel.tell, notices))
            since = piece.revision
            if not piece.changes:
                self._expire()
                return since

    def _expire(self) -> None:
        now = trio.current_time()
        self._absent = {path: until for path, until in self._absent.items() if until > now}

    async def _until_made(self, change: TreeChange) -> None:
        """Wait, not for long, while the file at an image's path is becoming an image: it may be this very one.

        Else the kernel would be told that the path leads to something else, and forget all that it knows.
        """
        file = self._staged_at(change)
        if file is not None and file.upload.image is None and file.turn.locked():
            with trio.move_on_after(_LONGEST):
                async with file.turn:
                    pass

    def _staged_at(self, change: TreeChange) -> StagedFile | None:
        """Give the file of this mount that is where an image is that nobody here knows yet."""
        if change.image is None or self._inodes.of_key(change.key) is not None:
            return None
        known = self._inodes.at(change.paths[0])
        return known.file if known is not None and known.kind is EntryKind.STAGED else None

    def _made_here(self, change: TreeChange) -> Inode | None:
        """Give the inode of a file that has become this image, where that has not been taken down yet."""
        file = self._staged_at(change)
        made = file.upload.image if file is not None else None
        return file.inode if file and made and change.image and made.id == change.image.id else None

    def _apply(self, change: TreeChange, notices: Notices) -> None:
        inode = self._inodes.of_key(change.key) or self._made_here(change)
        if change.image is None:
            if inode is not None and not inode.is_gone:
                notices.name(self._inodes, inode.path)
                self._inodes.lose(inode)
            return
        for path in change.paths:
            self._name_may_differ(path, inode, notices)
        # Our own changes are told, too. One that is overtaken says where the image was, and the kernel would forget it.
        if inode is None or inode.is_gone or change.image.revision <= inode.revision:
            return
        inode.revision = change.image.revision
        self._inodes.distrust(inode)
        if inode.path not in change.paths:
            notices.name(self._inodes, inode.path)
            self._inodes.leave(inode.path)
            inode.path = change.paths[0]
        self._update(inode, change.image, notices)

    async def _apply_folder(self, path: str, notices: Notices) -> None:
        """Look whether a folder is there; the kernel hears nothing of one that stays: somebody may work in it."""
        for _ in range(_LOOKS):
            entry: Entry | None = None
            self._inodes.watch(path)
            try:
                entry = await self._bridge.look(self._tree.lookup, path)
            except PathNotFound:
                pass
            finally:
                has_stirred = self._inodes.has_stirred(path)
            if not has_stirred:
                break
        else:
            # Somebody here makes and removes it all the time: whoever asks for it next looks for themselves.
            self._inodes.leave(path)
            notices.name(self._inodes, path)
            return
        inode = self._inodes.at(path)
        if entry is not None and inode is not None and self._inodes.of_key(entry.key) is inode:
            if inode.mtime_ns != entry.mtime_ns:
                self._inodes.refresh(inode, entry, allocated=0)
                notices.attributes.append(inode.ino)
        elif inode is not None:
            notices.name(self._inodes, path)
            self._inodes.lose(inode)
        else:
            self._inodes.doubt(path)
            if self._absent.pop(path, None) is not None:
                notices.name(self._inodes, path)

    def _name_may_differ(self, path: str, inode: Inode | None, notices: Notices) -> None:
        """Take back what the kernel was told of a path, unless it leads to this very inode."""
        known = self._inodes.at(path)
        if known is not None and known is not inode:
            self._inodes.leave(path)
            notices.name(self._inodes, path)
        elif known is None:
            # Each image that is made has such a name, too; they are always looked for.
            if not has_their_form(path):
                self._inodes.doubt(path)
            if self._absent.pop(path, None) is not None:
                notices.name(self._inodes, path)

    def _update(self, inode: Inode, image: Image, notices: Notices) -> None:
        kind = EntryKind.IMAGE if image.status is ImageStatus.AVAILABLE else EntryKind.QUEUED
        if inode.kind is EntryKind.STAGED:
            return
        if inode.kind is not kind:
            inode.kind = kind
            inode.allocated = image.size if kind is EntryKind.IMAGE else 0
            notices.contents.append(inode.ino)
        now = (image.size, mtime_of(image), image.owner, image.is_public)
        if (inode.size, inode.mtime_ns, inode.owner, inode.is_public) != now:
            inode.size, inode.mtime_ns, inode.owner, inode.is_public = now
            notices.attributes.append(inode.ino)
