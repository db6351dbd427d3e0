# SPDX-License-Identifier: Apache-2.0
"""Bytes between the kernel and the store, so that few requests cost a crossing to a thread.

Answers for four windows. `PageWindow` answers reads of real files at once where the page cache has them, and has one
buffer for all of them. `StreamWindow` reads stores without real files in pieces larger than the kernel asks for.
`AheadWindow` leaves that to a reader that reads ahead by itself. `WriteWindow` gathers what is written in a run, writes
behind, and keeps the order of writes.

A short answer to a read means the end of the file to the kernel, so no window ever gives one before the end.

Threading: belongs to the loop's thread; blocking calls cross the bridge.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from glancefs.errors import DataMissing
from glancefs.fuse.bridge import Bridge
from glancefs.fuse.mapping import WORTH_IT, FileMapping
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.turn import Turn
from glancefs.remote_reader import RemoteReader

LARGEST_REQUEST: Final = 1 << 20
"""In bytes: the most that Linux asks for, or hands over, in one request."""

_READ_AHEAD: Final = 8 * LARGEST_REQUEST
_STREAM_WINDOW: Final = 4 * LARGEST_REQUEST
_AT_ONCE: Final = 2 * LARGEST_REQUEST
"""How many bytes are written in one crossing at the least, while more of them come."""
_BEHIND: Final = 8 * LARGEST_REQUEST
"""How many bytes may wait to be written, beside those that are being written."""
_WORTH_KEEPING: Final = LARGEST_REQUEST // 4
"""From how many bytes on a piece is kept as it came; smaller ones are gathered."""

Piece = tuple[int, bytes | memoryview]
"""Bytes, and the offset at which they belong."""
WriteAt = Callable[[int, bytes | memoryview], int]
"""Writes bytes at an offset, and says how many."""


class PageWindow:
    """Reads of real files. One for a whole mount: its buffer is handed to the kernel before the loop runs again."""

    def __init__(self, *, bridge: Bridge, statistics: Statistics) -> None:
        self._bridge: Final = bridge
        self._statistics: Final = statistics
        self._buffer: Final = memoryview(bytearray(LARGEST_REQUEST))

    async def read(
        self, descriptor: int, offset: int, size: int, *, mapping: FileMapping | None = None
    ) -> memoryview | bytes:
        """Give ``size`` bytes, which must be there. The answer is good until the next await.

        Raises DataMissing when the file ends before, OSError.
        """
        if mapping is not None and size >= WORTH_IT and (part := mapping.part(offset, size)) is not None:
            self._statistics.cache_hits += 1
            return part
        view = self._buffer[:size]
        if len(view) < size:
            return await self._bridge.read(_read_all, descriptor, offset, size)
        try:
            # preadv2(2), RWF_NOWAIT: what is not in the page cache is left out, so the loop never waits for a disk.
            had = os.preadv(descriptor, (view,), offset, os.RWF_NOWAIT)
        except BlockingIOError:
            had = 0
        except OSError as error:
            # Not every file system can tell, an overlay for one.
            if error.errno != errno.EOPNOTSUPP:
                raise
            had = 0
        if had == size:
            self._statistics.cache_hits += 1
            return view
        head = bytes(view[:had])
        rest = await self._bridge.read(_read_all, descriptor, offset + had, size - had)
        return head + rest if head else rest


def _read_all(descriptor: int, offset: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.pread(descriptor, size, offset)
        if not piece:
            message = f"The data end at byte {offset}, {size} bytes too early."
            raise DataMissing(message)
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    # Starts what comes next on its way, so that it is found in the page cache.
    os.posix_fadvise(descriptor, offset, _READ_AHEAD, os.POSIX_FADV_WILLNEED)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class StreamWindow:
    """Reads of one open image whose store has no real files: a piece at a time, kept until another is wanted."""

    def __init__(self, *, bridge: Bridge, read_at: Callable[[int, int], bytes]) -> None:
        self._bridge: Final = bridge
        self._read_at: Final = read_at
        self._turn: Final = trio.Lock()
        self._start = 0
        self._piece = b""

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """Give ``size`` bytes, which must be there. Raises as the store's reader does."""
        async with self._turn:
            if not self._start <= offset <= offset + size <= self._start + len(self._piece):
                self._piece = await self._bridge.read(self._read_at, offset, max(size, _STREAM_WINDOW))
                self._start = offset
            at = offset - self._start
            return memoryview(self._piece)[at : at + size]


class AheadWindow:
    """Reads of one open image whose reader has what comes next fetched by itself: what is here goes at once.

    Reads do not wait for each other. Once all of the image is in a local file, that is what is read.
    """

    def __init__(self, *, bridge: Bridge, statistics: Statistics, pages: PageWindow, reader: RemoteReader) -> None:
        self._bridge: Final = bridge
        self._statistics: Final = statistics
        self._pages: Final = pages
        self._reader: Final = reader

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """Give ``size`` bytes, which must be there. Raises as the reader does."""
        if (file := self._reader.file) is not None:
            return await self._pages.read(file.fileno(), offset, size)
        found = self._reader.at_hand(offset, size)
        if found is None:
            return await self._bridge.read(self._reader.fetch, offset, size)
        self._statistics.cache_hits += 1
        return found


def write_all(write_at: WriteAt, pieces: Iterable[Piece]) -> None:
    """Write pieces in their order.

    Each by itself: for more than 1 MiB at once Linux looks for larger runs of free memory, which on a virtual machine
    are those that the host has taken back, and writing took twice the time.
    """
    for offset, data in pieces:
        write_at(offset, data)


class WriteWindow:
    """Writes to one staged file: gathered, written behind in their order, and never lost silently.

    A request is nearly always accepted without a wait; a crossing to a thread is for several buffers at once. When a
    write fails after it was accepted, every later call raises that error: the file is not what it should be.
    """

    def __init__(self, *, bridge: Bridge, write_at: WriteAt) -> None:
        self._bridge: Final = bridge
        self._write_at: Final = write_at
        self._turn: Final = Turn()
        self._gathered = bytearray()
        self._start = 0
        self._waiting: Final[deque[Piece]] = deque()
        self._waiting_size = 0
        self._unanswered: Final[list[Callable[[], None]]] = []
        self._progress: Final = trio.Condition()
        self._is_writing = False
        self._is_draining = False
        self.end = 0
        """Behind the last byte that was ever accepted."""
        self.error: BaseException | None = None

    @property
    def is_clean(self) -> bool:
        """Whether everything that was accepted has been written."""
        return not (self._gathered or self._waiting or self._is_writing)

    async def put(self, offset: int, data: bytes) -> None:
        """Accept bytes at any offset. Raises the error of an earlier write."""
        self._check()
        if not self._turn.locked() and not self._is_full:
            self._accept(offset, data)
            return
        async with self._turn:
            async with self._progress:
                while self._is_full:
                    await self._progress.wait()
            self._check()
            self._accept(offset, data)

    def take(self, offset: int, data: memoryview, answer: Callable[[], None]) -> bool:
        """Accept bytes that nobody changes any more, unless others are before them or a write has failed; say whether.

        ``answer`` is called once more of them may come, at the latest when a write fails.
        """
        if self.error is not None or self._turn.locked():
            return False
        self._accept(offset, data)
        if self._is_full:
            self._unanswered.append(answer)
        else:
            answer()
        return True

    @property
    def _is_full(self) -> bool:
        return self._waiting_size >= _BEHIND

    def _accept(self, offset: int, data: bytes | memoryview) -> None:
        if self._gathered and (len(data) >= _WORTH_KEEPING or offset != self._start + len(self._gathered)):
            self._hand_over()
        if len(data) >= _WORTH_KEEPING:
            self._wait((offset, data))
        else:
            if not self._gathered:
                self._start = offset
            self._gathered += data
            if len(self._gathered) >= LARGEST_REQUEST:
                self._hand_over()
        self.end = max(self.end, offset + len(data))
        if self._waiting_size >= _AT_ONCE:
            self._begin()

    def _wait(self, piece: Piece) -> None:
        self._waiting.append(piece)
        self._waiting_size += len(piece[1])

    def _taken_out(self) -> tuple[Piece, ...]:
        pieces = tuple(self._waiting)
        self._waiting.clear()
        self._waiting_size = 0
        for answer in self._unanswered:
            answer()
        self._unanswered.clear()
        return pieces

    async def drain(self) -> None:
        """Wait until everything is written. Raises the error of a write that failed."""
        async with self._turn:
            self._check()
            self._hand_over()
            self._is_draining = True
            try:
                self._begin()
                async with self._progress:
                    while self._waiting or self._is_writing:
                        await self._progress.wait()
            finally:
                self._is_draining = False
            self._check()

    @asynccontextmanager
    async def rest(self) -> AsyncIterator[Sequence[Piece]]:
        """Hand out what is not written yet, if anything, for the caller to `write_all` in a crossing of its own.

        Meanwhile everybody else waits. An error that leaves the context counts as one of the write. Raises the error of
        an earlier write.
        """
        async with self._turn:
            self._check()
            if self._is_writing:
                await self._rest_of_crossing()
                self._check()
            self._hand_over()
            pieces = self._taken_out()
            self._is_writing = bool(pieces)
            try:
                yield pieces
            except Exception as error:
                self.error = error if pieces else None
                raise
            finally:
                # Whoever waits for progress has the turn, which is ours.
                self._is_writing = False

    def drop(self) -> None:
        """Give up what is not written yet: nobody will ever want it."""
        self._gathered = bytearray()
        self._taken_out()

    def cut(self, size: int) -> None:
        """Say that the file was cut to, or stretched to, a size; call it on a drained window only."""
        self.end = size

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _hand_over(self) -> None:
        if self._gathered:
            self._wait((self._start, memoryview(self._gathered)))
            self._gathered = bytearray()

    async def _rest_of_crossing(self) -> None:
        async with self._progress:
            while self._is_writing:
                await self._progress.wait()

    def _begin(self) -> None:
        if self._waiting and not self._is_writing:
            self._is_writing = True
            self._bridge.start(self._write_behind)

    async def _write_behind(self) -> None:
        while self._waiting_size >= (1 if self._is_draining else _AT_ONCE) and self.error is None:
            pieces = self._taken_out()
            try:
                size = sum(len(data) for _, data in pieces)
                await self._bridge.write(write_all, self._write_at, pieces, size=size)
            except Exception as error:  # noqa: BLE001 - raised again to whoever writes, syncs or closes next
                self.error = error
                self._taken_out()
            async with self._progress:
                self._progress.notify_all()
        # At once after the last look: what is accepted from here on begins anew.
        self._is_writing = False
        async with self._progress:
            self._progress.notify_all()
