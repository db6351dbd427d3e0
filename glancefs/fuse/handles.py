# SPDX-License-Identifier: Apache-2.0
"""Open files: what each of them reads from, and what is written through it.

Answers for the bytes of files that are open. Does not know names; which files may be opened how, `glancefs.tree` says.

Threading: belongs to the loop's thread; blocking calls cross the bridge.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from glancefs.errors import ImmutableImage
from glancefs.fuse.inodes import Inode
from glancefs.fuse.mapping import FileMapping
from glancefs.fuse.staged import StagedFile, Writer
from glancefs.fuse.windows import LARGEST_REQUEST, AheadWindow, PageWindow, StreamWindow
from glancefs.reader import DataReader

_ZEROS: Final = memoryview(bytes(LARGEST_REQUEST))


@dataclass(slots=True, kw_only=True, eq=False)
class ImageHandle:
    """An available image; its data never change."""

    inode: Inode
    reader: DataReader
    pages: PageWindow
    stream: StreamWindow | AheadWindow | None = None
    """For stores without real files."""
    descriptor: int = -1
    mapping: FileMapping | None = None

    @property
    def whole(self) -> int | None:
        """The store's file, if there is one that is as long as the image."""
        is_whole = self.descriptor >= 0 and os.fstat(self.descriptor).st_size == self.reader.size
        return self.descriptor if is_whole else None

    @property
    def is_local(self) -> bool:
        """Whether the data are a file of this machine: to close it waits for nothing."""
        return self.stream is None

    def map(self) -> None:
        """Prepare for many reads."""
        if self.descriptor >= 0:
            self.mapping = FileMapping.of(self.descriptor, self.reader.size)

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """Give bytes of the image."""
        size = min(size, self.reader.size - offset)
        if size <= 0:
            return b""
        if self.stream is not None:
            return await self.stream.read(offset, size)
        return await self.pages.read(self.descriptor, offset, size, mapping=self.mapping)

    def close(self) -> None:
        """Let go of the data."""
        if self.mapping is not None:
            self.mapping.close()
        self.reader.close()


@dataclass(slots=True, kw_only=True, eq=False)
class StagedHandle:
    """A file that is not yet an image, open for reading, for writing or for both."""

    inode: Inode
    file: StagedFile
    pages: PageWindow
    writer: Writer | None = None

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """Give bytes as they were last written."""
        if not self.file.window.is_clean:
            await self.file.window.drain()
        upload = self.file.upload
        size = min(size, upload.size - offset)
        return b"" if size <= 0 else await self.pages.read(upload.fileno, offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        """Take bytes. Raises ImmutableImage once the file is an image, and what an earlier write met with."""
        writer = self.writer
        if writer is None:
            raise ImmutableImage("The file was opened for reading.")
        if self.file.is_published:
            message = f"{self.inode.path!r} has become an image, and data of images never change."
            raise ImmutableImage(message)
        if writer.is_closed:
            writer.open()
        self.file.change()
        await self.file.window.put(offset, data)
        return len(data)

    def take(self, offset: int, data: memoryview, answer: Callable[[], None]) -> bool:
        """Take bytes that nobody changes any more, as `WriteWindow.take` does. Raises as `write` does."""
        writer = self.writer
        if writer is None or writer.is_closed or self.file.is_published:
            return False
        self.file.change()
        return self.file.window.take(offset, data, answer)


@dataclass(slots=True, kw_only=True, eq=False)
class TextHandle:
    """A generated text, as it was when it was opened."""

    inode: Inode
    text: bytes

    async def read(self, offset: int, size: int) -> bytes:
        """Give bytes of the text."""
        return self.text[offset : offset + size]


@dataclass(slots=True, kw_only=True, eq=False)
class QueuedHandle:
    """An image whose data have not come: zeros, as many as were declared."""

    inode: Inode

    async def read(self, offset: int, size: int) -> memoryview:
        """Give zeros."""
        return _ZEROS[: max(0, min(size, self.inode.size - offset))]


AnyHandle = ImageHandle | StagedHandle | TextHandle | QueuedHandle
