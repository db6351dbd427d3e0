# SPDX-License-Identifier: Apache-2.0
"""One image in the cache: blocks that come, blocks that are here, and the whole once it is verified.

Answers for never giving bytes that are not the image's. A block is written before its digest, digests are taken away
before a block's place is given back, and whoever read a block looks afterwards whether its digest still stands. What
this process did not write itself is held against its digest once.

Several processes may have one image open. They write the same bytes to the same places, each under a lock of the index;
that the index was removed tells the others that the image is whole, or was thrown away.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import logging
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import BinaryIO, Final, Protocol

from glancefs.cache.folder import MARK, touch
from glancefs.cache.index import BLOCK, Index, digest

_log = logging.getLogger(__name__)

SEGMENT: Final = 1 << 20
"""In bytes: of an image that is in use, what is not needed any more is given back in pieces of this size."""
_MOST_AT_ONCE: Final = 4 << 20
_PUNCH: Final = 0x03
"""fallocate(2): FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE."""


class Keeper(Protocol):
    """What an image asks of the cache that it belongs to."""

    def make_room(self, size: int) -> bool:
        """Say whether so many bytes may be written, after making room for them."""
        ...

    def trouble(self, error: OSError) -> None:
        """Hear that nothing could be written."""
        ...

    def completed(self, image: CachedImage) -> None:
        """Hear that every block of an image is here."""
        ...

    def release(self, image: CachedImage) -> None:
        """Hear that somebody is done with an image."""
        ...


class CachedImage:
    """One image; made by `BlockCache.open`, and shared by all who have it open in this process."""

    def __init__(
        self, *, name: str, size: int, descriptor: int, index: Index | None, keeper: Keeper, ticks: Iterator[int]
    ) -> None:
        """Take the files over; without an index the image is whole and verified."""
        self.name: Final = name
        self.size: Final = size
        self.uses = 1
        self._descriptor: Final = descriptor
        self._index: Final = index
        self._keeper: Final = keeper
        self._ticks: Final = ticks
        self._turn: Final = Lock()
        self._is_whole = index is None
        self._is_dead = False
        self._left = 0 if index is None else index.missing()
        self._trusted: Final = bytearray(0 if index is None else index.blocks)
        """For each block whether this process wrote it, or held it against its digest."""
        self._used: Final[dict[int, int]] = {}
        """When each segment was used last."""
        self._is_damage_told = False

    # ---- what is here

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here and verified."""
        return self._is_whole

    @property
    def is_complete(self) -> bool:
        """Whether every block is here, so that the whole can be verified."""
        return not (self._is_whole or self._is_dead) and self._left == 0

    def file(self) -> BinaryIO:
        """Open the data of a whole image on their own, read-only, for as long as the caller likes. Raises OSError."""
        descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        return os.fdopen(descriptor, "rb", buffering=0)

    def read_now(self, start: int, stop: int) -> memoryview | None:
        """Give bytes if they are in memory and known to be right; waits for nothing and nobody."""
        room = memoryview(bytearray(stop - start))
        first, last = start // BLOCK, -(-stop // BLOCK)
        if not self._is_whole and (self._is_dead or self._trusted.count(0, first, last)):
            return None
        try:
            # preadv2(2), RWF_NOWAIT: what is not in the page cache is left out.
            if os.preadv(self._descriptor, [room], start, os.RWF_NOWAIT) != len(room):
                return None
            if not self._is_whole and (self._index is None or 0 in self._index.digests(first, last)):
                return None
        except OSError:
            return None
        self._use(start, stop)
        return room

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Give bytes from ``start`` on as far as they are here, not beyond ``stop``; none for what must be fetched."""
        stop = min(stop, self.size, start + _MOST_AT_ONCE)
        try:
            data = self._read_whole(start, stop) if self._is_whole else self._read_blocks(start, stop)
        except OSError as error:
            _log.info("reading from the cache failed: %s", error)
            return b""
        if len(data):
            self._use(start, start + len(data))
        return data

    def has(self, start: int, stop: int) -> bool:
        """Say whether all of a range is here."""
        if self._is_whole:
            return True
        try:
            return self._index is not None and 0 not in self._index.digests(start // BLOCK, -(-stop // BLOCK))
        except OSError:
            return False

    def next_held(self, start: int, stop: int) -> int:
        """Give where, from ``start`` on, the next block is that is here; ``stop`` if there is none before."""
        if self._index is None or self._is_dead:
            return stop
        first = start // BLOCK
        with_digest = (number for number, found in enumerate(self._index.digests(first, -(-stop // BLOCK))) if found)
        number = next(with_digest, None)
        return stop if number is None else min(stop, max(start, (first + number) * BLOCK))

    def _read_whole(self, start: int, stop: int) -> bytes:
        data = os.pread(self._descriptor, stop - start, start)
        if len(data) < stop - start:
            # Cut by somebody else; the next who opens it finds that out and throws it away.
            self._is_dead, self._is_whole = True, False
            return b""
        return data

    def _read_blocks(self, start: int, stop: int) -> bytes | memoryview:
        index = self._index
        if index is None or self._is_dead:
            return b""
        first = start // BLOCK
        digests = index.digests(first, -(-stop // BLOCK))
        held = next((number for number, found in enumerate(digests) if not found), len(digests))
        if not held:
            return b""
        last = first + held
        if self._trusted.count(0, first, last):
            if index.is_gone:
                # Another process brought them, and the rest: ours is the old index of what is whole by now.
                self.recount()
                return self._read_whole(start, stop) if self._is_whole else b""
            last = self._check(first, digests[:held])
        stop = min(stop, last * BLOCK)
        if stop <= start:
            return b""
        data = os.pread(self._descriptor, stop - start, start)
        # A block whose digest is gone by now may have been given back while it was read.
        return data if len(data) == stop - start and 0 not in index.digests(first, last) else b""

    def _check(self, first: int, digests: array[int]) -> int:
        """Hold blocks against their digests; give where the first one is that is not what it must be, or the end."""
        for number, wanted in enumerate(digests, start=first):
            if self._trusted[number]:
                continue
            block = os.pread(self._descriptor, self._size_of(number), number * BLOCK)
            if len(block) < self._size_of(number) or digest(memoryview(block)) != wanted:
                self._damaged(number, wanted)
                return number
            self._trusted[number] = 1
        return first + len(digests)

    def _damaged(self, number: int, wanted: int) -> None:
        with self._changing() as index:
            # Unless somebody has changed it meanwhile, which is no damage.
            if index is None or index.digests(number, number + 1)[0] != wanted:
                return
            index.clear(number, number + 1)
            self._left += 1
        if not self._is_damage_told:
            self._is_damage_told = True
            _log.warning("Part of the image %s in the cache was damaged; it is fetched again.", self.name[:12])

    # ---- what comes

    def put(self, start: int, data: memoryview) -> None:
        """Keep bytes that were fetched, from the beginning of a block on, to the end of one or of the image.

        Never raises: what can't be kept is not kept.
        """
        stop = start + len(data)
        if self._is_whole or self._is_dead or not data or self.has(start, stop):
            return
        if not self._keeper.make_room(len(data)):
            return
        try:
            self._write(start, stop, data)
        except OSError as error:
            self._keeper.trouble(error)
            return
        self._use(start, stop)
        if self.is_complete:
            self._keeper.completed(self)

    def _write(self, start: int, stop: int, data: memoryview) -> None:
        first, last = start // BLOCK, -(-stop // BLOCK)
        digests = array("I", (digest(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)))
        with self._changing() as index:
            if index is None:
                return
            new = index.digests(first, last).count(0)
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], start + done)
            index.write(first, digests)
            self._trusted[first:last] = b"\1" * (last - first)
            self._left -= new

    def recount(self) -> None:
        """See how many blocks are here, and whether it is whole by now: other processes bring some too.

        Raises OSError.
        """
        with self._changing() as index:
            if index is not None:
                self._left = index.missing()

    @contextmanager
    def _changing(self) -> Iterator[Index | None]:
        """Hold the right to change blocks; None once the image is whole, or thrown away."""
        with self._turn:
            index = self._index
            if index is None or self._is_settled():
                yield None
                return
            fcntl.flock(index.fileno(), fcntl.LOCK_EX)
            try:
                if index.is_gone:
                    self._learn()
                yield None if self._is_settled() else index
            finally:
                fcntl.flock(index.fileno(), fcntl.LOCK_UN)

    def _is_settled(self) -> bool:
        return self._is_whole or self._is_dead

    def _learn(self) -> None:
        status = os.fstat(self._descriptor)
        is_whole = status.st_nlink > 0 and status.st_mtime_ns == MARK and status.st_size == self.size
        self._is_whole, self._is_dead = is_whole, not is_whole

    # ---- what goes

    def segments(self) -> list[tuple[int, int]]:
        """Give when each segment was used last, and its number, for what is not whole. Raises OSError."""
        if self._index is None or self._is_whole or self._is_dead:
            return []
        per_segment = SEGMENT // BLOCK
        found = []
        for number in range(-(-self.size // SEGMENT)):
            first = number * per_segment
            if any(self._index.digests(first, min(first + per_segment, self._index.blocks))):
                found.append((self._used.get(number, 0), number))
        return found

    def give_back(self, segment: int) -> int:
        """Give a segment's place on the disk back; say how many bytes that were. Raises OSError."""
        per_segment = SEGMENT // BLOCK
        first = segment * per_segment
        with self._changing() as index:
            if index is None:
                return 0
            last = min(first + per_segment, index.blocks)
            held = last - first - index.digests(first, last).count(0)
            index.clear(first, last)
            self._trusted[first:last] = bytes(last - first)
            self._left += held
            _punch(self._descriptor, segment * SEGMENT, SEGMENT)
        self._used.pop(segment, None)
        return held * BLOCK

    # ---- the whole

    def parts(self) -> Iterator[bytes]:
        """Give the data from the beginning to the end, for verifying them. Raises OSError."""
        for start in range(0, self.size, SEGMENT):
            yield os.pread(self._descriptor, min(SEGMENT, self.size - start), start)

    def sync(self) -> None:
        """Bring the data to the disk. Raises OSError."""
        os.fdatasync(self._descriptor)

    @contextmanager
    def settling(self) -> Iterator[bool]:
        """Hold the image still while it is declared whole or thrown away; say whether every block is still here.

        Raises OSError.
        """
        with self._changing() as index:
            yield index is not None and index.missing() == 0

    def become_whole(self) -> None:
        """Mark it as whole and verified; the caller is `settling` it and removes the index. Raises OSError."""
        os.utime(self._descriptor, ns=(os.fstat(self._descriptor).st_atime_ns, MARK))
        self._is_whole = True

    def die(self) -> None:
        """Have nobody read it any more, in no process; the caller is `settling` it and removes it. Raises OSError."""
        self._is_dead = True
        if self._index is not None:
            self._index.clear_all()

    @property
    def is_dead(self) -> bool:
        """Whether it was thrown away."""
        return self._is_dead

    # ---- the end

    def close(self) -> None:
        """Say that this caller is done with it."""
        self._keeper.release(self)

    def let_go(self) -> None:
        """Close the files; the cache calls it when nobody has the image open any more."""
        try:
            touch(self._descriptor)
        except OSError as error:
            _log.debug("the time of use can't be noted: %s", error)
        if self._index is not None:
            self._index.close()
        os.close(self._descriptor)

    def _use(self, start: int, stop: int) -> None:
        if self._index is not None:
            tick = next(self._ticks)
            for segment in range(start // SEGMENT, -(-stop // SEGMENT)):
                self._used[segment] = tick

    def _size_of(self, block: int) -> int:
        return min(BLOCK, self.size - block * BLOCK)


def ticking() -> Iterator[int]:
    """Count uses, from one on."""
    return itertools.count(1)


def _punch(descriptor: int, start: int, size: int) -> None:
    """Make a hole of a part of a file (fallocate(2)), which Python does not offer. Raises OSError."""
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(descriptor, _PUNCH, start, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
