# SPDX-License-Identifier: Apache-2.0
"""Reading images that are on another machine: what is wanted, what will be wanted next, and nothing twice.

Answers for fetching ranges of an image so that a run of reads finds its bytes here before it asks for them, while a
jump costs what it needs; for many readers of one file at a time; for bounded memory; and for what a local cache has of
it. How far to read ahead `glancefs.streams` says.

A part is fetched by whoever needs it first, so nobody waits in a queue; ahead of readers several connections fetch side
by side, as many as it takes that nobody waits.

Threading: every method may be called from many threads. `at_hand` waits for nothing, so an event loop may call it.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Final, Self

from glancefs.cache import BlockCache, CachedImage
from glancefs.cores import roam
from glancefs.errors import Unavailable
from glancefs.model import Image
from glancefs.parts import Memory, Part, Parts
from glancefs.reader import CHUNK_SIZE
from glancefs.remote_source import RangeSource
from glancefs.streams import Ahead, Streams, ceiling, floor

MOST_AHEAD: Final = 32 << 20
"""In bytes: how far the runs in one file get ahead of their readers, all together."""
MOST_PER_FILE: Final = 48 << 20
"""In bytes: how much of one open file is in memory."""
MOST_IN_ALL: Final = 256 << 20
"""In bytes: how much of all open files is in memory."""
PATIENCE: Final = 4.0
"""Seconds for which a server that is busy, or starts again, is asked anew."""
_FIRST_PAUSE: Final = 0.1
_SMALLEST_PART: Final = 256 << 10
_LARGEST_PART: Final = 4 << 20
_PARTS: Final = 4
"""In how many parts a window is fetched."""
_THREADS: Final = 16
_MOST_LANES: Final = 8
"""How many connections fetch ahead for one file."""


class Fetching:
    """What the readers of one mount share: threads that fetch ahead, and the memory for what they bring."""

    def __init__(self, *, most_memory: int = MOST_IN_ALL, threads: int = _THREADS) -> None:
        self.memory: Final = Memory(most_memory)
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="fetch-ahead", initializer=roam)
        self._turn: Final = Lock()
        self._active: Final[OrderedDict[RemoteReader, None]] = OrderedDict()
        """Who has something in memory, the one that was read from last at the end."""

    def close(self) -> None:
        """Stop; waits for what is on its way, each part of which has a deadline of its own."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, work: Callable[[], None]) -> None:
        """Have a thread do something."""
        self._threads.submit(work)

    def active(self, reader: RemoteReader) -> None:
        """Note that somebody reads from this one."""
        with self._turn:
            self._active[reader] = None
            self._active.move_to_end(reader)

    def gone(self, reader: RemoteReader) -> None:
        """Note that a reader is closed."""
        with self._turn:
            self._active.pop(reader, None)

    def reclaim(self, reader: RemoteReader) -> None:
        """Have the one that was not read from for longest, other than this one, give its memory back."""
        with self._turn:
            oldest = next((other for other in self._active if other is not reader), None)
            if oldest is not None:
                del self._active[oldest]
        if oldest is not None:
            oldest.trim()


class RemoteReader:
    """The data of an available image, by way of its source and, where there is one, of a local cache."""

    def __init__(
        self,
        *,
        image: Image,
        source: RangeSource,
        fetching: Fetching,
        cached: CachedImage | None = None,
        most_ahead: int = MOST_AHEAD,
        patience: float = PATIENCE,
    ) -> None:
        """``cached`` is closed with the reader. ``most_ahead`` of 0 bytes fetches only what is asked for.

        For ``patience`` seconds a source that is unavailable is asked again; what was begun in time may end later.
        """
        self.image: Final = image
        self.size: Final = image.size
        self._source: Final = source
        self._fetching: Final = fetching
        self._cached: Final = cached
        self._turn: Final = Lock()
        self._patience: Final = patience
        self._streams: Final = Streams(size=self.size, most_ahead=most_ahead)
        self._parts: Final = Parts(memory=fetching.memory, most=MOST_PER_FILE)
        self._queue: Final[deque[Part]] = deque()
        self._fetchers = 0
        """Threads that fetch ahead for this reader."""
        self._lanes = 1
        self._users = 1
        """Who may still use the cache: the one who has the reader open, and threads that fetch."""
        self._is_closed = False
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def file(self) -> BinaryIO | None:
        """A real file with all of the data, once the cache has them whole and verified; the reader closes it."""
        if self._file is None and self._cached is not None and self._cached.is_whole and not self._is_closed:
            try:
                self._file = self._cached.file()
            except OSError:
                # Read by way of the cache, it is slower and right.
                return None
        return self._file

    def close(self) -> None:
        """Let go of the data; may be called twice. Nothing of it waits for the network."""
        with self._turn:
            if self._is_closed:
                return
            self._is_closed = True
            self._drop_queue()
            self._parts.trim()
        self._fetching.gone(self)
        if self._file is not None:
            self._file.close()
        self._leave()

    # ---- reading

    def at_hand(self, offset: int, size: int) -> memoryview | bytes | None:
        """Give bytes if all of them are here, and have what is likely to be wanted next fetched; waits for nothing.

        For None `fetch` gives them. Call it once for each read, in the order of reads.
        """
        stop = min(offset + size, self.size)
        if stop <= offset:
            return b""
        cached = self._cached
        found: memoryview | bytes | None = cached.read_now(offset, stop) if cached is not None else None
        if found is not None and cached is not None and cached.is_whole:
            return found
        with self._turn:
            ahead = self._streams.note(offset, stop)
            if found is None:
                found = self._here(offset, stop)
            if ahead is not None:
                self._plan(ahead)
        return found

    def fetch(self, offset: int, size: int) -> memoryview | bytes:
        """Give bytes, from wherever they are to be had; fewer only where the image ends.

        Raises what the source raises.
        """
        stop = min(offset + size, self.size)
        pieces: list[memoryview | bytes] = []
        while offset < stop:
            piece = self._some(offset, stop)
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_at(self, offset: int, size: int) -> bytes:
        """Give the ``size`` bytes from ``offset`` on; fewer only where the image ends. Raises as `fetch` does."""
        found = self.at_hand(offset, size)
        return bytes(self.fetch(offset, size) if found is None else found)

    def iter(self, start: int = 0, stop: int | None = None, *, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Give the bytes from ``start`` up to, not including, ``stop`` (None: the end), in pieces."""
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            piece = self.read_at(start, min(chunk_size, stop - start))
            yield piece
            start += len(piece)

    def trim(self) -> None:
        """Let go of what is in memory; others need the room."""
        # Whoever holds the lock is reading, so it is not the one to be trimmed.
        if self._turn.acquire(blocking=False):
            try:
                self._parts.trim()
            finally:
                self._turn.release()

    # ---- what is here

    def _here(self, offset: int, stop: int) -> memoryview | bytes | None:
        """Give bytes that are in memory, if all are."""
        found = []
        position = offset
        while position < stop:
            part = self._parts.at(position)
            if part is None or part.data is None:
                return None
            found.append((part, position, min(stop, part.stop)))
            position = part.stop
        pieces = [self._parts.read(*one) for one in found]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _some(self, offset: int, stop: int) -> memoryview | bytes:
        """Give bytes from ``offset`` on, at least one."""
        while True:
            with self._turn:
                part = self._parts.at(offset)
                if part is not None and part.data is not None:
                    return self._parts.read(part, offset, min(stop, part.stop))
            if part is None and self._cached is not None:
                found = self._cached.read(offset, stop)
                if len(found):
                    return found
            if part is None:
                part = self._needed(offset, stop)
            self._bring(part)
            with self._turn:
                if part.error is not None:
                    raise part.error
                if part.data is not None:
                    return self._parts.read(part, offset, min(stop, part.stop))
            # The cache has it by now, or nobody fetches it any more: look again.

    def _needed(self, offset: int, stop: int) -> Part:
        """Begin a part for bytes that are needed now, unless somebody has just done so."""
        start = floor(offset)
        end = min(ceiling(stop), self.size)
        if self._cached is not None:
            # Of a longer request some may be in the cache, behind what is missing.
            end = self._cached.next_held(start, end)
        if self._fetching.memory.is_short:
            self._fetching.reclaim(self)
        self._fetching.active(self)
        with self._turn:
            part = self._parts.at(offset)
            if part is not None:
                return part
            while (before := self._parts.at(start)) is not None:
                start = before.stop
            added = self._parts.add(start, self._parts.next_start(start, end), is_ahead=False)
        if added is None:
            raise Unavailable("There is no memory for what is to be read.")
        return added

    # ---- fetching

    def _bring(self, part: Part) -> None:
        """Have a part here, or its error, when this returns."""
        if part.claim():
            self._fetch(part, needed=True)
            return
        if not part.done.is_set():
            with self._turn:
                # Somebody waits for what was to be here: one more connection next time.
                if part.is_ahead:
                    part.is_ahead = False
                    self._lanes = min(_MOST_LANES, self._lanes + 1)
                self._pump()
        part.done.wait()

    def _fetch(self, part: Part, *, needed: bool) -> None:
        if not self._enter():
            part.error = Unavailable("The image was closed.")
            part.done.set()
            return
        try:
            if not needed and self._cached is not None and self._cached.has(part.start, part.stop):
                with self._turn:
                    self._parts.drop(part)
                part.done.set()
                return
            try:
                data = self._ask(part, patience=self._patience if needed else 0.0)
            except Exception as error:  # noqa: BLE001 - raised again to everybody who waits for these bytes
                self._failed(part, error)
                return
            view = memoryview(data)
            with self._turn:
                part.data = view
                if self._is_closed:
                    self._parts.drop(part)
            part.done.set()
            if self._cached is not None:
                self._cached.put(part.start, view)
        finally:
            self._leave()

    def _ask(self, part: Part, *, patience: float) -> bytes | bytearray:
        """Ask the source, and again for a while when it is busy, or just starting. Raises what it raised last."""
        until = time.monotonic() + patience
        pause = _FIRST_PAUSE
        while True:
            try:
                data = self._source.fetch(part.start, part.stop)
            except Unavailable:
                if self._is_closed or time.monotonic() + pause > until:
                    raise
            else:
                if len(data) == len(part):
                    return data
                raise Unavailable("The server sent another part of the image than the one asked for.")
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _failed(self, part: Part, error: Exception) -> None:
        with self._turn:
            part.error = error
            self._parts.drop(part)
            # What comes next from there would fail too, and somebody would wait for each.
            self._drop_queue()
            self._lanes = 1
        part.done.set()

    def _plan(self, ahead: Ahead) -> None:
        """Have a range fetched; called with the lock held."""
        if self._is_closed:
            return
        size = max(_SMALLEST_PART, min(_LARGEST_PART, floor(ahead.window // _PARTS)))
        position = floor(ahead.start)
        while position < ahead.stop:
            known = self._parts.at(position)
            if known is not None:
                position = known.stop
                continue
            # Parts begin at multiples of their size where they can, so that requests seldom lie across two.
            end = min(ahead.stop, self._parts.next_start(position, ahead.stop), (position // size + 1) * size)
            part = self._parts.add(position, end, is_ahead=True)
            if part is None:
                break
            self._queue.append(part)
            position = end
        self._pump()

    def _pump(self) -> None:
        """Start threads for what is queued; called with the lock held."""
        while self._fetchers < min(self._lanes, len(self._queue)):
            self._fetchers += 1
            self._fetching.submit(self._fetch_ahead)

    def _fetch_ahead(self) -> None:
        while True:
            with self._turn:
                part = self._queue.popleft() if self._queue else None
                if part is None:
                    self._fetchers -= 1
                    return
            if part.claim():
                self._fetch(part, needed=False)

    def _drop_queue(self) -> None:
        for part in self._queue:
            if part.claim():
                # Without an error: who waits for it looks again, and asks for what they need.
                self._parts.drop(part)
                part.done.set()
        self._queue.clear()

    # ---- the cache

    def _enter(self) -> bool:
        with self._turn:
            if not self._users:
                return False
            self._users += 1
            return True

    def _leave(self) -> None:
        with self._turn:
            self._users -= 1
            is_last = not self._users
        if is_last and self._cached is not None:
            self._cached.close()


class RemoteReaders:
    """Opens the images of one mount."""

    def __init__(
        self,
        *,
        source_of: Callable[[Image], RangeSource],
        cache: BlockCache | None = None,
        most_ahead: int = MOST_AHEAD,
        patience: float = PATIENCE,
        fetching: Fetching | None = None,
    ) -> None:
        self._source_of: Final = source_of
        self._cache: Final = cache
        self._most_ahead: Final = most_ahead
        self._patience: Final = patience
        self._fetching: Final = fetching or Fetching()

    def close(self) -> None:
        """Stop fetching ahead and let go of the cache, after the last reader is closed."""
        self._fetching.close()
        if self._cache is not None:
            self._cache.close()

    def open(self, image: Image) -> RemoteReader:
        """Open the data of an image; asks nobody until something is read."""
        source = self._source_of(image)
        return RemoteReader(
            image=image,
            source=source,
            fetching=self._fetching,
            cached=self._cache.open(source.checksum, source.size) if self._cache is not None else None,
            most_ahead=self._most_ahead,
            patience=self._patience,
        )
