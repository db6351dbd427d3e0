# SPDX-License-Identifier: Apache-2.0
"""Opening, reading, writing and closing: the open files of a mount.

Answers for which kind of handle an open gives, and for the life of handles. What may be opened how, `glancefs.tree`
says; when what was written becomes an image, `glancefs.fuse.publishing`.

Threading: belongs to the loop's thread; blocking calls cross the bridge.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from pyfuse3 import FileInfo, FUSEError

from glancefs.errors import ImageNotFound, ImmutableImage, IsAFolder, PathNotFound, PathTaken
from glancefs.fuse.bridge import Bridge
from glancefs.fuse.finality import Opener, opener_of
from glancefs.fuse.handles import AnyHandle, ImageHandle, QueuedHandle, StagedHandle, TextHandle
from glancefs.fuse.inodes import Inode, Inodes
from glancefs.fuse.passthrough import Passthrough, Way
from glancefs.fuse.priority import Pace
from glancefs.fuse.publishing import Publisher
from glancefs.fuse.receiving import Receiving
from glancefs.fuse.replacing import Replacements
from glancefs.fuse.retries import Retries
from glancefs.fuse.staged import StagedFile, Writer
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.windows import AheadWindow, PageWindow, StreamWindow
from glancefs.reader import DataReader
from glancefs.remote_reader import RemoteReader
from glancefs.staging import StagedState, StagedUpload
from glancefs.tree import Entry, EntryKind, ImageTree


class OpenFiles:
    """The open files of one mount, by the number that the kernel has for each."""

    def __init__(
        self,
        *,
        tree: ImageTree,
        bridge: Bridge,
        inodes: Inodes,
        publisher: Publisher,
        passthrough: Passthrough,
        receiving: Receiving,
        pace: Pace,
        statistics: Statistics,
        numbers: Iterator[int],
    ) -> None:
        """``numbers`` are those that handles get; none comes twice, in other views of the same mount either."""
        self._tree: Final = tree
        self._bridge: Final = bridge
        self._inodes: Final = inodes
        self._publisher: Final = publisher
        self._passthrough: Final = passthrough
        self._receiving: Final = receiving
        self._pace: Final = pace
        self._statistics: Final = statistics
        self._pages: Final = PageWindow(bridge=bridge, statistics=statistics)
        self._numbers: Final = numbers
        self._handles: Final[dict[int, AnyHandle]] = {}
        self.replacements: Final = Replacements(inodes=inodes, numbers=numbers)
        self.retries: Final = Retries()

    def handle(self, number: int) -> AnyHandle:
        """Give an open file. Raises EBADF for none."""
        handle = self._handles.get(number)
        if handle is None:
            raise FUSEError(errno.EBADF)
        return handle

    def inode_of(self, number: int) -> Inode | None:
        """Give the inode of an open file."""
        handle = self._handles.get(number)
        return None if handle is None else handle.inode

    # ---- entries

    async def entry_of(self, inode: Inode) -> Entry:
        """Give the entry that an inode stands for. Raises ESTALE when it is gone.

        At an open, Linux then looks the path up anew: something else may be there since a moment.
        """
        if inode.file is not None and inode.kind is EntryKind.STAGED:
            return inode.file.entry
        entry = self._inodes.entry_of(inode)
        if entry is None:
            try:
                entry = self._publisher.shown(await self._bridge.look(self._tree.lookup, inode.path))
            except PathNotFound:
                raise self._stale(inode) from None
            if self._inodes.of_key(entry.key) is not inode:
                raise self._stale(inode)
            self._inodes.remember(inode, entry)
        return entry

    def _stale(self, inode: Inode) -> FUSEError:
        self._inodes.distrust(inode)
        if self._inodes.at(inode.path) is inode:
            self._inodes.leave(inode.path)
        return FUSEError(errno.ESTALE)

    # ---- opening

    async def open(self, inode: Inode, flags: int, task: int) -> FileInfo:
        """Open a file. Raises ESTALE once for an image that is to be written anew (`glancefs.fuse.replacing`)."""
        if inode.kind is EntryKind.FOLDER:
            raise IsAFolder("A folder can't be opened as a file.")
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return await self._open_to_read(inode, flags, task)
        is_new = bool(flags & os.O_TRUNC)
        replaced = self.replacements.take(task, inode)
        if replaced is None and inode.kind is EntryKind.IMAGE and is_new:
            self.replacements.ask(task, inode.path)
            raise FUSEError(errno.ESTALE)
        if replaced is None:
            entry = await self.entry_of(inode)
        else:
            # The kernel may have forgotten the old inode by this time.
            entry = self._publisher.shown(await self._bridge.look(self._tree.lookup, replaced.path))
        if is_new and inode.file is not None:
            await self._drain_for_truncation(inode.file)
        work = partial(_stage, self._tree, entry, task, truncate=is_new)
        upload, opener = await self._bridge.change(work)
        file = self._publisher.file_of(upload, inode)
        if replaced is not None:
            file.hides = entry
        if is_new:
            file.window.cut(0)
        return self._opened(self._writing(file, opener, flags), flags)

    async def create(self, path: str, flags: int, task: int, *, has_folder: bool) -> tuple[FileInfo, Inode]:
        """Make a file and open it. Raises as `ImageTree.create` does."""
        try:
            work = partial(_create, self._tree, path, task, has_folder=has_folder)
            upload, opener = await self._bridge.change(work)
        except PathTaken:
            if flags & os.O_EXCL:
                raise
            return await self._open_what_came_between(path, flags, task)
        file = self._publisher.file_of(upload, self._inode_for(upload, path))
        return self._opened(self._writing(file, opener, flags), flags), file.inode

    def _inode_for(self, upload: StagedUpload, path: str) -> Inode:
        key = f"staged:{upload.key}"
        inode = self._inodes.of_key(key) or self._inodes.make(key, path, EntryKind.STAGED)
        if (known := self._inodes.at(path)) is not None and known is not inode:
            self._inodes.leave(path)
        self._inodes.move(inode, path)
        return inode

    async def _open_what_came_between(self, path: str, flags: int, task: int) -> tuple[FileInfo, Inode]:
        """Open what another door put at a path that the kernel held for free."""
        entry = await self._bridge.look(self._tree.lookup, path)
        if entry.kind is EntryKind.FOLDER:
            raise IsAFolder("A folder can't be opened as a file.")
        work = partial(_stage, self._tree, entry, task, truncate=bool(flags & os.O_TRUNC))
        upload, opener = await self._bridge.change(work)
        file = self._publisher.file_of(upload, self._inode_for(upload, path))
        return self._opened(self._writing(file, opener, flags), flags), file.inode

    async def hold(self, inode: Inode, task: int) -> bool:
        """Open what a task has found that was told to look again; say whether it is still there.

        Raises what the open would raise, but for ESTALE.
        """
        if inode.kind is not EntryKind.IMAGE or (inode.file is not None and inode.file.is_staged):
            return True
        # The kernel is not yet told of it, and may forget it at this moment.
        inode.uses += 1
        is_there = False
        try:
            self.retries.hold(task, inode, await self._reader_of(inode))
            is_there = True
        except FUSEError:
            pass
        finally:
            inode.uses -= 1
            if not is_there:
                self._inodes.free_if_unused(inode)
        return is_there

    async def _open_to_read(self, inode: Inode, flags: int, task: int) -> FileInfo:
        reader = self.retries.take(task, inode)
        if reader is not None:
            return self._reading(inode, reader, flags)
        try:
            return await self._open_for_reading(inode, flags)
        except FUSEError as error:
            if error.errno == errno.ESTALE:
                self.retries.expect(task, inode.path)
            raise

    async def _open_for_reading(self, inode: Inode, flags: int) -> FileInfo:
        file = inode.file
        if file is not None and (inode.kind is EntryKind.STAGED or file.is_staged):
            file.handles += 1
            return self._opened(StagedHandle(inode=inode, file=file, pages=self._pages))
        entry = await self.entry_of(inode)
        if inode.kind is EntryKind.DOCUMENT:
            text = await self._bridge.look(self._tree.read_document, entry)
            return self._opened(TextHandle(inode=inode, text=text), is_direct=True)
        if inode.kind is EntryKind.QUEUED:
            return self._opened(QueuedHandle(inode=inode), is_direct=True)
        return self._reading(inode, await self._reader_of(inode), flags)

    async def _reader_of(self, inode: Inode) -> DataReader:
        """Open an image. Raises ESTALE when it is gone."""
        entry = await self.entry_of(inode)
        try:
            return await self._bridge.read(self._tree.open, entry)
        except ImageNotFound:
            raise self._stale(inode) from None

    def _reading(self, inode: Inode, reader: DataReader, flags: int) -> FileInfo:
        if reader.file is not None:
            handle = ImageHandle(inode=inode, reader=reader, pages=self._pages, descriptor=reader.file.fileno())
        else:
            handle = ImageHandle(inode=inode, reader=reader, pages=self._pages, stream=self._stream_of(reader))
        return self._opened(handle, flags)

    def _stream_of(self, reader: DataReader) -> StreamWindow | AheadWindow:
        if isinstance(reader, RemoteReader):
            return AheadWindow(bridge=self._bridge, statistics=self._statistics, pages=self._pages, reader=reader)
        return StreamWindow(bridge=self._bridge, read_at=reader.read_at)

    def _writing(self, file: StagedFile, opener: Opener, flags: int) -> StagedHandle:
        writer = Writer(file=file, opener=opener, is_read_write=flags & os.O_ACCMODE == os.O_RDWR)
        writer.open()
        file.handles += 1
        return StagedHandle(inode=file.inode, file=file, pages=self._pages, writer=writer)

    def _opened(self, handle: AnyHandle, flags: int = 0, *, is_direct: bool = False) -> FileInfo:
        number = next(self._numbers)
        self._handles[number] = handle
        handle.inode.uses += 1
        self._statistics.open_files = len(self._handles)
        is_staged = isinstance(handle, StagedHandle)
        take = None
        if isinstance(handle, StagedHandle) and handle.writer is not None:
            take = partial(self._take, handle)
            self._pace.begin_write()
        self._receiving.enter(number, take=take, release=partial(self._release_at_once, number))
        if not is_direct:
            is_image = isinstance(handle, ImageHandle)
            descriptor = handle.whole if isinstance(handle, ImageHandle) else None
            way = self._passthrough.enter(number, handle.inode.ino, flags, is_image=is_image, descriptor=descriptor)
            if way is Way.BACKED:
                self._statistics.passed_through += 1
            elif isinstance(handle, ImageHandle):
                handle.map()
            is_direct = way in {Way.DIRECT, Way.WRITTEN}
        return FileInfo(fh=number, direct_io=is_direct, keep_cache=not (is_direct or is_staged))

    async def _drain_for_truncation(self, file: StagedFile) -> None:
        file.wake()
        await file.window.drain()

    # ---- writing

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """Take bytes. Raises EBADF, and as `StagedHandle.write` does."""
        handle = self.handle(number)
        if not isinstance(handle, StagedHandle):
            raise FUSEError(errno.EBADF)
        size = await handle.write(offset, data)
        self._statistics.bytes_written += size
        return size

    def _take(self, handle: StagedHandle, offset: int, data: memoryview, answer: Callable[[], None]) -> bool:
        """Take bytes that came without a request to pyfuse3, unless others are before them, or it fails."""
        if not handle.take(offset, data, answer):
            return False
        self._statistics.requests["write"] += 1
        self._statistics.bytes_written += len(data)
        return True

    async def truncate(self, inode: Inode, size: int, number: int | None, task: int) -> None:
        """Cut a file to a size, or stretch it with a hole. Raises ImmutableImage for an image that has its data."""
        handle = self.handle(number) if number is not None else None
        file = handle.file if isinstance(handle, StagedHandle) else inode.file
        opener: Opener | None = None
        if file is None or not (file.is_staged or file.upload.state is StagedState.DISCARDED):
            if inode.kind is EntryKind.IMAGE:
                message = f"{inode.path!r} is an image, and data of images never change."
                raise ImmutableImage(message)
            entry = await self.entry_of(inode)
            upload, opener = await self._bridge.change(partial(_stage, self._tree, entry, task, truncate=False))
            file = self._publisher.file_of(upload, inode)
        file.wake()
        file.change()
        await file.window.drain()
        await self._bridge.write(file.upload.truncate, size)
        file.window.cut(size)
        if not file.writers and file.is_staged:
            if opener is None:
                opener = await self._bridge.look(opener_of, task)
            self._publisher.settle(file, opener)

    async def sync(self, number: int) -> None:
        """Bring what was written so far to the disk; nothing is published."""
        handle = self.handle(number)
        if isinstance(handle, StagedHandle) and handle.writer is not None:
            await handle.file.window.drain()
            if handle.file.is_staged:
                await self._bridge.write(handle.file.upload.fsync)

    # ---- closing

    async def flush(self, number: int) -> None:
        """Answer a close. Raises what keeps a file from becoming an image."""
        handle = self.handle(number)
        if isinstance(handle, StagedHandle) and handle.writer is not None:
            await self._publisher.closed(handle.writer)

    async def release(self, number: int) -> None:
        """Let go of an open file, whose last descriptor is closed; nobody hears of errors."""
        handle = self._handles.get(number)
        if handle is None:
            return
        self._leave(number)
        if isinstance(handle, StagedHandle):
            if handle.writer is not None:
                self._pace.end_write()
                await self._publisher.released(handle.writer)
            handle.file.handles -= 1
            await self._publisher.let_go(handle.file)
        elif isinstance(handle, ImageHandle):
            if handle.is_local:
                handle.close()
            else:
                await self._bridge.read(handle.close)
        self._released(handle)

    def _release_at_once(self, number: int) -> bool:
        """Let go of what has become an image, or is read from a local file: that waits for nothing."""
        handle = self._handles.get(number)
        if isinstance(handle, StagedHandle):
            writer = handle.writer
            if not handle.file.is_published or (writer is not None and not writer.is_closed):
                return False
            self._leave(number)
            if writer is not None:
                self._pace.end_write()
            handle.file.handles -= 1
            self._publisher.let_go_of_published(handle.file)
        elif isinstance(handle, ImageHandle) and handle.is_local:
            self._leave(number)
            handle.close()
        else:
            return False
        self._released(handle)
        self._statistics.requests["release"] += 1
        return True

    def _leave(self, number: int) -> None:
        del self._handles[number]
        self._passthrough.leave(number)
        self._receiving.leave(number)
        self._statistics.open_files = len(self._handles)

    def _released(self, handle: AnyHandle) -> None:
        handle.inode.uses -= 1
        self._inodes.free_if_unused(handle.inode)

    async def finish(self) -> None:
        """Close everything, as at the end of the mount: what is complete becomes an image, the rest stays staged."""
        await self._publisher.finish()
        self.retries.finish()
        for handle in self._handles.values():
            if isinstance(handle, ImageHandle):
                handle.close()
        self._handles.clear()


def _stage(tree: ImageTree, entry: Entry, task: int, *, truncate: bool) -> tuple[StagedUpload, Opener]:
    return tree.stage(entry, truncate=truncate), opener_of(task)


def _create(tree: ImageTree, path: str, task: int, *, has_folder: bool) -> tuple[StagedUpload, Opener]:
    # What was there before may have got another name elsewhere, which the kernel has not heard of.
    return tree.create(path, has_folder=has_folder), opener_of(task, path.rpartition("/")[2])
