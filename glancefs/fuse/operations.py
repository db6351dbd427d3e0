# SPDX-License-Identifier: Apache-2.0
"""The requests of the kernel, each answered from the inodes or the tree.

Answers for every operation of FUSE that pyfuse3 knows: one that is left out would be switched off for good. Names,
attributes and folders are here; open files are in `glancefs.fuse.files`. Holds no rule about images: `glancefs.tree`
does, and an operation that means nothing for images is refused with the errno that programs take for that.

Threading: belongs to the loop's thread; blocking calls cross the bridge.
"""

from __future__ import annotations

import errno
import logging
import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from glancefs import paths
from glancefs.errors import PathNotFound
from glancefs.fuse.attributes import Appearance, file_system
from glancefs.fuse.bridge import Bridge
from glancefs.fuse.changes import Watcher
from glancefs.fuse.files import OpenFiles
from glancefs.fuse.folders import FolderHandle, looked_up
from glancefs.fuse.guard import guarded
from glancefs.fuse.inodes import Inode, Inodes
from glancefs.fuse.listing import tell_some
from glancefs.fuse.names import Names
from glancefs.fuse.publishing import Publisher
from glancefs.fuse.statistics import Statistics
from glancefs.stores.base import Space
from glancefs.tree import Entry, EntryKind, ImageTree

_log = logging.getLogger(__name__)

ATTRIBUTES: Final = b"user.glance."
"""What the names of the extended attributes that are kept begin with."""
PID_ATTRIBUTE: Final = b"user.glance.mount.pid"
"""On the root: which process serves the mount, for who waits for its end."""
_SPACE_FOR: Final = 1.0
"""Seconds for which the room in the store is taken for what it was."""
_MADE_FOR: Final = 0.1
"""Seconds for which the kernel takes a new file for what it was made as: it looks once more before the open is over."""
_FIRST: Final = 3
"""The place that follows those of ``.`` and ``..`` in a folder."""


class Operations(pyfuse3.Operations):
    """One mount. Handlers are called by pyfuse3; `report` and `statistics` serve the guard around them."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        *,
        tree: ImageTree,
        bridge: Bridge,
        inodes: Inodes,
        publisher: Publisher,
        watcher: Watcher,
        appearance: Appearance,
        files: OpenFiles,
        statistics: Statistics,
        numbers: Iterator[int],
        read_only: bool = False,
    ) -> None:
        super().__init__()
        self.statistics = statistics
        self.files: Final = files
        self._tree: Final = tree
        self._bridge: Final = bridge
        self._inodes: Final = inodes
        self._publisher: Final = publisher
        self._watcher: Final = watcher
        self._appearance: Final = appearance
        self._names: Final = Names(inodes=inodes, watcher=watcher, absent_for=appearance.entry_timeout)
        self._read_only: Final = read_only
        self._numbers: Final = numbers
        see = partial(self._see, is_listed=True)
        self._tell_some: Final = partial(tell_some, inodes=inodes, appearance=appearance, see=see)
        self._folders: Final[dict[int, FolderHandle]] = {}
        self._space: tuple[float, Space | None] | None = None
        self.greeted: Final = trio.Event()
        """Set by the kernel's first request; whoever waits for it goes on when that is answered."""

    def init(self) -> None:
        """Take the kernel's first request (FUSE_INIT). libfuse answers it before the loop does anything else."""
        self.greeted.set()

    def report(self, request: str, about: object, error: BaseException) -> None:
        """Tell people why a request failed, in ``.glance/errors`` and in the log."""
        inode = None
        if isinstance(about, int):
            inode = self.files.inode_of(about) if request in _OF_OPEN_FILES else self._inodes.get(about)
        self._tree.report(f"{inode.path or '/'} ({request})" if inode else request, error)

    # ---- names

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name in a folder."""
        path = self._path(parent_inode, name)
        inode = await self._found(parent_inode, path)
        if self.files.retries.is_expected(ctx.pid, path):
            while inode is not None and not await self.files.hold(inode, ctx.pid):
                inode = await self._found(parent_inode, path)
        if inode is None:
            self._names.tell_free(path)
            return self._appearance.nothing()
        replacement = self.files.replacements.give(ctx.pid, inode)
        return self._told(replacement or inode)

    def absence(self, parent_inode: int, name: bytes, task: int) -> float | None:
        """Answer `lookup` at once where that needs no look: for how many seconds a name may be taken for free.

        None: the name is not free, or that is not known for sure.
        """
        path = self._path(parent_inode, name)
        if not self._names.is_free(parent_inode, path) or self.files.retries.is_expected(task, path):
            return None
        self.statistics.requests["lookup"] += 1
        return self._names.tell_free(path)

    async def _found(self, folder: int, path: str) -> Inode | None:
        inode = self._names.known(path)
        if inode is None and not self._names.is_free(folder, path):
            with suppress(PathNotFound):
                inode = await self._look(path)
        return inode

    @guarded
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Free what the kernel has forgotten; there is no answer."""
        for ino, lookups in inode_list:
            inode = self._inodes.forget(ino, lookups)
            if inode is not None:
                self.files.replacements.forget(inode)
                if inode.file is not None:
                    self._publisher.drop(inode.file)

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a folder."""
        del mode, ctx
        self._check_writable()
        path = self._path(parent_inode, name)
        entry = await self._bridge.change(self._tree.make_folder, path)
        self._watcher.is_there(path)
        inode = self._see(entry)
        inode.is_whole = self._appearance.shares_names
        return self._told(inode)

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove a file."""
        del ctx
        self._check_writable()
        path = self._path(parent_inode, name)
        entry = await self._bridge.change(self._tree.remove, path)
        inode = self._inodes.of_key(entry.key) or self._inodes.at(path)
        if inode is not None:
            self._inodes.lose(inode)
            if inode.file is not None and not inode.file.is_staged:
                inode.file.wake()
                await self._publisher.let_go(inode.file)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty folder."""
        del ctx
        self._check_writable()
        path = self._path(parent_inode, name)
        await self._bridge.change(self._tree.remove_folder, path)
        if (inode := self._inodes.at(path)) is not None:
            self._inodes.lose(inode)

    @guarded
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a file or folder; a dot-file that gets a plain name becomes an image."""
        del ctx
        self._check_writable()
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EINVAL)
        old = self._path(parent_inode_old, name_old)
        new = self._path(parent_inode_new, name_new)
        moved = self._inodes.at(old)
        if moved is not None and moved.file is not None:
            await moved.file.window.drain()
        size = moved.file.size if moved is not None and moved.file is not None else 0
        work = partial(self._tree.rename, old, new, replace=not flags & pyfuse3.RENAME_NOREPLACE)
        entry = await self._bridge.write(work, size=size)
        replaced = self._inodes.at(new)
        self._renamed(moved, old, new, entry)
        for inode in (moved, replaced):
            if inode is not None and inode.file is not None:
                await self._publisher.let_go(inode.file)

    def _renamed(self, moved: Inode | None, old: str, new: str, entry: Entry) -> None:
        self._watcher.is_there(new)
        replaced = self._inodes.at(new)
        if moved is None:
            self._inodes.doubt(new)
            return
        if replaced is not None and replaced is not moved:
            self._inodes.lose(replaced)
        if moved.kind is EntryKind.FOLDER:
            self._inodes.move_below(old, new)
            return
        self._inodes.move(moved, new)
        if moved.file is not None and entry.image is not None and moved.kind is EntryKind.STAGED:
            moved.file.wake()
            self._publisher.became(moved.file, entry.image, moved.file.upload.allocated())
        self._inodes.refresh(moved, entry, allocated=moved.allocated)

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Refuse: an image has one name."""
        raise FUSEError(errno.EPERM)

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Refuse: there are no links but those of ``.glance``."""
        raise FUSEError(errno.EPERM)

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Refuse: images are no devices, pipes or sockets."""
        raise FUSEError(errno.EPERM)

    @guarded
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Give the target of a link of ``.glance``."""
        del ctx
        entry = await self.files.entry_of(self._inode(inode))
        return (await self._bridge.look(self._tree.read_link, entry)).encode()

    # ---- attributes

    @guarded
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Give the attributes, from memory."""
        del ctx
        return self._appearance.attributes(self._inode(inode))

    @guarded
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Change size or times. Modes and owners are accepted and change nothing."""
        self._check_writable()
        known = self._inode(inode)
        if fields.update_size:
            await self.files.truncate(known, attr.st_size, fh, ctx.pid)
        if fields.update_mtime and not known.is_gone:
            entry = await self.files.entry_of(known)
            changed = await self._bridge.change(self._tree.set_times, entry, attr.st_mtime_ns)
            self._inodes.refresh(known, changed, allocated=known.allocated)
            self._inodes.distrust(known)
        return self._appearance.attributes(known)

    @guarded
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        """Say yes: the kernel checks modes itself, and the tree knows whose images these are."""
        return True

    @guarded
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Tell the room in the store."""
        del ctx
        now = trio.current_time()
        if self._space is None or self._space[0] < now:
            self._space = (now + _SPACE_FOR, await self._bridge.look(self._tree.space))
        return file_system(self._space[1])

    # ---- extended attributes

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Give an attribute; those of others are refused without a look, since every write asks for one."""
        del ctx
        if not name.startswith(ATTRIBUTES):
            raise FUSEError(errno.EOPNOTSUPP)
        if name == PID_ATTRIBUTE and inode == pyfuse3.ROOT_INODE:
            return str(self.statistics.pid).encode()
        entry = await self.files.entry_of(self._inode(inode))
        return await self._bridge.look(self._tree.get_xattr, entry, name.decode("utf-8", "replace"))

    @guarded
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Name the attributes."""
        del ctx
        known = self._inode(inode)
        if known.kind in {EntryKind.FOLDER, EntryKind.LINK, EntryKind.DOCUMENT}:
            return ()
        entry = await self.files.entry_of(known)
        return [name.encode() for name in await self._bridge.look(self._tree.list_xattrs, entry)]

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an attribute; ``user.glance.status`` may publish, ``user.glance.name`` renames."""
        del ctx
        if not name.startswith(ATTRIBUTES):
            raise FUSEError(errno.EOPNOTSUPP)
        self._check_writable()
        known = self._inode(inode)
        if known.file is not None:
            await known.file.window.drain()
        entry = await self.files.entry_of(known)
        is_open = known.file is not None and known.file.writers > 0
        work = partial(self._tree.set_xattr, entry, name.decode("utf-8", "replace"), value, is_open=is_open)
        self._set(known, await self._bridge.write(work, size=known.file.size if known.file else 0))

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an attribute."""
        del ctx
        if not name.startswith(ATTRIBUTES):
            raise FUSEError(errno.EOPNOTSUPP)
        self._check_writable()
        known = self._inode(inode)
        entry = await self.files.entry_of(known)
        work = partial(self._tree.remove_xattr, entry, name.decode("utf-8", "replace"))
        self._set(known, await self._bridge.change(work))

    def _set(self, inode: Inode, entry: Entry) -> None:
        self._inodes.distrust(inode)
        file = inode.file
        if file is not None and inode.kind is EntryKind.STAGED and entry.image is not None and not file.is_staged:
            file.wake()
            self._publisher.became(file, entry.image, file.upload.allocated())
        elif entry.path == inode.path:
            self._inodes.refresh(inode, entry, allocated=inode.allocated)
        else:
            self._inodes.doubt(entry.path)

    # ---- folders

    @guarded
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a folder."""
        del ctx
        number = next(self._numbers)
        path, prepare = self._inode(inode).path, self._appearance.prepare
        self._folders[number] = FolderHandle(tree=self._tree, bridge=self._bridge, path=path, prepare=prepare)
        self.statistics.open_folders = len(self._folders)
        return number

    @guarded
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Hand out entries with their attributes, from a place on, until the kernel has enough."""
        folder = self._folders[fh]
        for place, name in ((1, b"."), (2, b"..")):
            if start_id < place and not pyfuse3.readdir_reply(token, name, self._dots(folder), place):
                return
        place = max(start_id, _FIRST - 1) - (_FIRST - 1)
        while entries := await folder.at(place):
            told = self._tell_some(token, entries, place + _FIRST)
            place += told
            # What comes next is fetched while the reader is at what it has.
            if told < len(entries) or not folder.is_at_hand(place):
                return

    def _dots(self, folder: FolderHandle) -> EntryAttributes:
        return self._appearance.attributes(self._inodes.at(folder.path) or self._inodes.root)

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Let go of an open folder."""
        self._folders.pop(fh, None)
        self.statistics.open_folders = len(self._folders)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:  # noqa: FBT001 - as pyfuse3 calls it
        """Do nothing: names are durable when they are made."""

    # ---- open files

    @guarded
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file."""
        if flags & _WRITING:
            self._check_writable()
        return await self.files.open(self._inode(inode), flags, ctx.pid)

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it."""
        del mode
        self._check_writable()
        path = self._path(parent_inode, name)
        opened, inode = await self.files.create(path, flags, ctx.pid, has_folder=self._has_folder(path))
        self._watcher.is_there(path)
        shown = self._told(inode)
        if self._appearance.shares_names:
            shown.attr_timeout = max(shown.attr_timeout, _MADE_FOR)
        return opened, shown

    @guarded
    async def read(self, fh: int, off: int, size: int) -> memoryview | bytes:  # type: ignore[override] # any buffer will do
        """Give bytes; the answer is used before the loop runs again."""
        data = await self.files.handle(fh).read(off, size)
        self.statistics.bytes_read += len(data)
        return data

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Take bytes."""
        return await self.files.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """Answer a close(2); the last one makes an image."""
        await self.files.flush(fh)

    @guarded
    async def release(self, fh: int) -> None:
        """Let go of an open file."""
        await self.files.release(fh)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: FBT001 - as pyfuse3 calls it
        """Bring what was written to the disk."""
        del datasync
        await self.files.sync(fh)

    @guarded
    async def poll(self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: RequestContext) -> int:
        """Say that files are always ready."""
        return select.POLLIN | select.POLLOUT

    # ---- between names and inodes

    def _inode(self, ino: int) -> Inode:
        inode = self._inodes.get(ino)
        if inode is None:
            raise FUSEError(errno.ESTALE)
        return inode

    def _path(self, parent: int, name: bytes) -> str:
        folder = self._inode(parent)
        if folder.is_gone:
            raise FUSEError(errno.ENOENT)
        return paths.join(folder.path, paths.component_from_bytes(name))

    async def _look(self, path: str) -> Inode:
        entry, size = await self._bridge.look(looked_up, self._tree, path, self._appearance.prepare)
        return self._see(entry, allocated=size)

    def _see(self, entry: Entry, allocated: int = 0, *, is_listed: bool = False) -> Inode:
        entry = self._publisher.shown(entry)
        inode = self._inodes.see(entry, allocated=allocated, is_listed=is_listed)
        if entry.staged is not None:
            self._publisher.file_of(entry.staged, inode)
        return inode

    def _told(self, inode: Inode) -> EntryAttributes:
        self._inodes.count(inode)
        return self._appearance.attributes(inode)

    def _has_folder(self, path: str) -> bool:
        """Say whether the folder of a path is known to be there, while others' changes are being followed."""
        folder = self._names.known(paths.split(path)[0])
        return folder is not None and folder.kind is EntryKind.FOLDER

    def _check_writable(self) -> None:
        if self._read_only:
            raise FUSEError(errno.EROFS)


_OF_OPEN_FILES: Final = frozenset({"read", "write", "flush", "release", "fsync"})
_WRITING: Final = 0o3 | 0o1000
"""O_ACCMODE and O_TRUNC."""
