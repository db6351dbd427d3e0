# SPDX-License-Identifier: Apache-2.0
"""When a staged file of a mount becomes an image.

The last close publishes, so that its error reaches close(2) and with it the program. Files of writers that were killed
are put aside. Files opened for reading and writing settle: they are published when their opener has ended, or has left
them alone for a while. What is left when the mount ends is finished then.

Answers for the moment. What publishing means, and for which files, `glancefs.tree` knows; what a close means,
`glancefs.fuse.finality` reads from /proc.

Threading: belongs to the loop's thread; blocking calls cross the bridge.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from glancefs.errors import GlancefsError
from glancefs.fuse.bridge import Bridge
from glancefs.fuse.finality import Closing, Opener, closing, was_killed, watch
from glancefs.fuse.inodes import Inode, Inodes
from glancefs.fuse.notices import Kernel, Notices
from glancefs.fuse.staged import StagedFile, Writer
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.windows import Piece, WriteWindow, write_all
from glancefs.model import Image
from glancefs.reporting import Transfer
from glancefs.staging import StagedState, StagedUpload
from glancefs.tree import Entry, EntryKind, ImageTree
from glancefs.tree.entries import image_entry, image_key

_log = logging.getLogger(__name__)

_KILLED: Final = "its writer was killed"
_PUBLISHING: Final = frozenset({Closing.LAST, Closing.LAST_OF_EXIT})

Published = tuple[Image, int]
"""What a file has become, and the bytes that it takes on the disk."""

SETTLE_AFTER: Final = 5.0
"""Seconds without an open handle after which a file that was created for reading and writing is complete."""


class Publisher:
    """The staged files that this mount has handed out, and what becomes of them."""

    def __init__(
        self,
        *,
        tree: ImageTree,
        bridge: Bridge,
        inodes: Inodes,
        kernel: Kernel,
        statistics: Statistics,
        settle_after: float = SETTLE_AFTER,
    ) -> None:
        self._tree: Final = tree
        self._bridge: Final = bridge
        self._inodes: Final = inodes
        self._kernel: Final = kernel
        self._statistics: Final = statistics
        self._settle_after: Final = settle_after
        self._files: Final[dict[str, StagedFile]] = {}
        statistics.under_way = self._under_way

    # ---- the files

    def file_of(self, upload: StagedUpload, inode: Inode) -> StagedFile:
        """Give the file of an upload, which this inode is to stand for if none does yet."""
        file = self._files.get(upload.key)
        if file is None:
            window = WriteWindow(bridge=self._bridge, write_at=upload.write_at)
            file = self._files[upload.key] = StagedFile(upload=upload, inode=inode, window=window)
            self._inodes.bind(f"staged:{upload.key}", inode)
            inode.kind = EntryKind.STAGED
            inode.file = file
        return file

    def shown(self, entry: Entry) -> Entry:
        """Give what is to be seen where the tree has an entry: of a file that replaces an image, still the image."""
        file = self._files.get(entry.staged.key) if entry.staged is not None else None
        if file is None or file.hides is None or not file.is_staged:
            return entry
        old = self._inodes.of_key(file.hides.key)
        return entry if old is not None and old.is_gone else file.hides

    def drop(self, file: StagedFile) -> None:
        """Let go of a file that nobody holds; it is made again when it is next looked at."""
        if not file.handles and file.settling is None and not file.inode.lookups:
            self._files.pop(file.upload.key, None)
            if file.inode.file is file:
                file.inode.file = None

    async def let_go(self, file: StagedFile) -> None:
        """Give back what a file takes that is published or discarded, and that nobody has open."""
        if file.is_published:
            self.let_go_of_published(file)
        elif not file.handles and file.upload.state is StagedState.DISCARDED:
            await self._bridge.change(self._tree.release, file.upload)
            self.drop(file)

    def let_go_of_published(self, file: StagedFile) -> None:
        """Do so for one that is published: its bytes have a name, so this frees no blocks and waits for nothing."""
        if not file.handles:
            self._tree.release(file.upload)
            self.drop(file)

    # ---- closes

    async def closed(self, writer: Writer) -> None:
        """Answer the close of a descriptor. Raises what keeps the file from becoming an image.

        A file that was removed or put aside meanwhile is no error: nothing is left to be done.
        """
        file = writer.file
        if writer.is_closed or not file.is_staged:
            return
        async with file.turn:
            verdict, published = await self._close(writer)
            if verdict is Closing.NOT_LAST or (verdict is Closing.UNKNOWN and not file.upload.is_written):
                return
            writer.close()
            if published is not None:
                await self._tell(file, *published)
        if verdict is Closing.KILLED:
            await self._put_aside(file, _KILLED)
        elif not file.writers and file.is_staged:
            is_suspect = verdict is Closing.LAST_OF_INTERRUPTED
            if is_suspect or (writer.is_read_write and verdict is not Closing.LAST_OF_EXIT):
                self.settle(file, writer.opener, is_suspect=is_suspect)
            else:
                await self.publish(file)

    async def _close(self, writer: Writer) -> tuple[Closing, Published | None]:
        """Write what is left, find out what the close means, and nearly always publish, all in one crossing."""
        file = writer.file
        ino, name = file.inode.ino, file.inode.path.rpartition("/")[2]
        try:
            async with file.window.rest() as pieces:
                is_simple = file.writers == 1 and not writer.is_read_write
                work = partial(
                    _close,
                    self._tree,
                    file.upload,
                    pieces,
                    opener=writer.opener,
                    ino=ino,
                    name=name,
                    is_simple=is_simple,
                )
                verdict, published, failure = await self._bridge.write(work, size=file.size)
        except (GlancefsError, OSError) as error:
            await self._put_aside(file, str(error))
            raise
        if failure is not None:
            raise failure
        return verdict, published

    async def released(self, writer: Writer) -> None:
        """Finish a file that was let go without a last close: its descriptor had gone to another process.

        Errors go to the log: nobody waits for an answer.
        """
        file = writer.file
        if writer.is_closed:
            return
        writer.close()
        if file.writers or file.upload.state is not StagedState.STAGED:
            return
        if writer.is_read_write:
            self.settle(file, writer.opener)
        else:
            await self._publish_unasked(file)

    def settle(self, file: StagedFile, opener: Opener, *, is_suspect: bool = False) -> None:
        """Publish a file when its opener has ended, or has left it alone for a while; a killed one's is put aside.

        ``is_suspect`` says that the opener is taken for killed where nothing can be known. To be called while the
        opener waits for an answer: afterwards it may be gone.
        """
        file.wake()
        if self._tree.will_publish(file.upload):
            file.settling = trio.CancelScope()
            watched = _Watched(opener=opener, pidfd=watch(opener), is_suspect=is_suspect)
            self._bridge.start(partial(self._settled, file, watched, file.settling))

    async def publish(self, file: StagedFile) -> None:
        """Make an image of a file, if it is one that becomes an image. Raises as `ImageTree.publish` does."""
        async with file.turn:
            file.wake()
            if not file.is_staged or not self._tree.will_publish(file.upload):
                return
            await self._drain(file)
            work = partial(_publish, self._tree, file.upload)
            published = await self._bridge.write(work, size=file.size)
            if published is not None:
                await self._tell(file, *published)

    async def _tell(self, file: StagedFile, image: Image, allocated: int) -> None:
        notices = self.became(file, image, allocated)
        if len(notices):
            # Nobody who waits for a close holds the lock of a folder.
            await self._bridge.notify(partial(self._kernel.tell, notices))

    def became(self, file: StagedFile, image: Image, allocated: int) -> Notices:
        """Let the inode of a staged file stand for the image that it has become. Gives what to tell the kernel.

        ``allocated`` is what it takes on the disk, in bytes: who asks the disk waits for the interpreter afterwards.
        """
        inode = file.inode
        notices = Notices()
        if (other := self._inodes.at(inode.path)) is not None and other is not inode:
            self._inodes.lose(other)
            notices.name(self._inodes, inode.path)
        self._inodes.move(inode, inode.path)
        self._inodes.bind(image_key(image.id), inode)
        entry = image_entry(inode.path, image, is_changeable=True)
        self._inodes.refresh(inode, entry, allocated=allocated)
        self._statistics.published += 1
        self._statistics.ended.append(file.transfer("done"))
        return notices

    def _under_way(self) -> list[Transfer]:
        # Copied in one step: this is asked by another thread.
        return [file.transfer() for file in list(self._files.values()) if file.writers and file.is_staged]

    async def finish(self) -> None:
        """Publish everything that is complete; what is still being written stays staged. Errors go to the log."""
        async with trio.open_nursery() as nursery:
            for file in list(self._files.values()):
                file.wake()
                if not file.writers and file.upload.state is StagedState.STAGED:
                    nursery.start_soon(self._publish_unasked, file)

    # ---- the ways a file goes

    async def _drain(self, file: StagedFile) -> None:
        try:
            await file.window.drain()
        except (GlancefsError, OSError) as error:
            await self._put_aside(file, str(error))
            raise

    async def _put_aside(self, file: StagedFile, reason: str) -> None:
        file.wake()
        if not file.is_staged:
            return
        file.window.drop()
        self._statistics.ended.append(file.transfer("failed"))
        try:
            await self._bridge.write(self._tree.abort, file.upload, reason)
        except (GlancefsError, OSError, trio.TooSlowError) as error:
            # Whoever closes is told what went wrong first.
            _log.warning("%s could not be put aside: %s", file.upload.path, error)
        self._inodes.lose(file.inode)

    async def _settled(self, file: StagedFile, opener: _Watched, scope: trio.CancelScope) -> None:
        with scope:
            is_killed = await opener.is_killed(within=self._settle_after)
            if file.settling is scope and not file.writers:
                # From here on it is no longer to be woken, only to be waited for.
                file.settling = None
                if is_killed:
                    await self._put_aside(file, _KILLED)
                else:
                    await self._publish_unasked(file)

    async def _publish_unasked(self, file: StagedFile) -> None:
        try:
            await self.publish(file)
        except (GlancefsError, OSError, trio.TooSlowError) as error:
            _log.warning("%s did not become an image: %s", file.upload.path, error)
        except Exception:  # noqa: BLE001 - a task of its own: what it raised would end the mount
            _log.exception("%s did not become an image", file.upload.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A process whose end is waited for."""

    opener: Opener
    pidfd: int | None
    is_suspect: bool

    async def is_killed(self, *, within: float) -> bool:
        """Wait for its end, but not longer than these seconds; say whether it was killed by a signal."""
        if self.pidfd is None:
            # Out of sight, or gone before it could be watched.
            await trio.sleep(0 if self.opener.pid else within)
            return False
        try:
            with trio.move_on_after(within):
                await trio.lowlevel.wait_readable(self.pidfd)
                known = was_killed(self.pidfd, self.opener)
                return self.is_suspect if known is None else known
            return False
        finally:
            os.close(self.pidfd)


def _close(
    tree: ImageTree,
    upload: StagedUpload,
    pieces: Sequence[Piece],
    *,
    opener: Opener,
    ino: int,
    name: str,
    is_simple: bool,
) -> tuple[Closing, Published | None, Exception | None]:
    """Give what a close means, the image that it made, and the error that kept it from making one."""
    write_all(partial(upload.write_at, is_noted=False), pieces)
    verdict = closing(opener, ino, name)
    published: Published | None = None
    failure: Exception | None = None
    if is_simple and (verdict in _PUBLISHING or (verdict is Closing.UNKNOWN and upload.is_written)):
        try:
            published = _publish(tree, upload)
        except (GlancefsError, OSError) as error:
            failure = error
    if pieces and published is None:
        try:
            upload.note()
        except GlancefsError as error:
            # What kept it from becoming an image is told first.
            failure = failure or error
    return verdict, published, failure


def _publish(tree: ImageTree, upload: StagedUpload) -> Published | None:
    image = tree.publish(upload)
    return None if image is None else (image, upload.allocated())
