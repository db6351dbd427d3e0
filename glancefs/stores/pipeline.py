# SPDX-License-Identifier: Apache-2.0
"""One pass over an upload: its bytes are written and hashed at the same time.

Answers for reading a `Source` to its end through a few buffers that are used again and again, and for the SHA-256 of
what came. Does not know where the bytes go, nor whether they are as many as was promised.

Threading: the caller's thread reads and writes, one thread beside it hashes (hashlib lets go of the interpreter's lock
while it does); that thread has ended whenever `copy` returns or raises. A small upload starts no thread.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Final, Protocol, Self

from glancefs.cores import roam
from glancefs.stores.base import Source

SMALL: Final = 256 * 1024
"""Up to how many bytes an upload is read, hashed and written in one piece."""
BLOCK: Final = 1024 * 1024
"""Bytes handed over at once: enough that the hand-over costs nothing beside the hashing."""
BLOCKS: Final = 4
"""How many blocks an upload has in rotation at the most."""


class Digest(Protocol):
    """What hashlib's objects can do."""

    def update(self, data: memoryview, /) -> None:
        """Hash these bytes too."""
        ...

    def hexdigest(self) -> str:
        """Give the result."""
        ...

    def copy(self) -> Digest:
        """Give one that goes on from here on its own."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What came out of a source."""

    size: int
    checksum: str


class Blocks:
    """Blocks that one upload, or one piece of it, leaves to the next: up to ``most`` of them."""

    def __init__(self, *, most: int) -> None:
        self._most: Final = most
        self._spare: Final[deque[memoryview]] = deque()

    def take(self) -> memoryview:
        """Give a block, an old one if there is any."""
        try:
            return self._spare.pop()
        except IndexError:
            # Pages of an anonymous map exist once they are touched: a slow upload holds only what came.
            return memoryview(mmap.mmap(-1, BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def give_back(self, blocks: Iterable[memoryview]) -> None:
        """Take blocks that nobody uses any more."""
        for block in blocks:
            if len(self._spare) < self._most:
                self._spare.append(block)


def sha256() -> Digest:
    """Begin a checksum."""
    return hashlib.sha256(usedforsecurity=False)


def checksum_text(digest: Digest) -> str:
    """Write a checksum as the registry keeps it."""
    return f"sha256:{digest.hexdigest()}"


def copy(
    source: Source,
    write: Callable[[memoryview], None],
    *,
    size: int | None = None,
    digest: Digest | None = None,
    blocks: Blocks | None = None,
) -> Copied:
    """Read the source to its end and hand everything to ``write`` in order; ``size`` is a guess that spares memory.

    What ``write`` is given is valid during the call only. Errors of either side pass through. A ``digest`` goes on with
    what came before; ``blocks`` are used again by who has many pieces.
    """
    digest = digest or sha256()
    done = 0
    # One byte more than promised, so that a source that keeps its word is read to its end in one filling.
    wanted = SMALL if size is None else size + 1
    if wanted <= SMALL:
        head = memoryview(bytearray(wanted))
        done = _fill(source, head)
        if done:
            digest.update(head[:done])
            write(head[:done])
        if done < wanted:
            return Copied(size=done, checksum=checksum_text(digest))
    done += _copy_beside(source, write, digest, blocks or Blocks(most=0))
    return Copied(size=done, checksum=checksum_text(digest))


def _copy_beside(source: Source, write: Callable[[memoryview], None], digest: Digest, blocks: Blocks) -> int:
    done = 0
    with _HashBeside(digest=digest, blocks=blocks) as beside:
        while True:
            block = beside.take()
            size = _fill(source, block)
            # Written before it is handed over: the hashing thread gives blocks back for reuse.
            if size:
                write(block[:size])
            beside.hand_over(block, size)
            done += size
            if size < BLOCK:
                return done


def _fill(source: Source, buffer: memoryview) -> int:
    """Fill the whole buffer, so that a source of small pieces costs no small writes; less only at the end."""
    filled = 0
    while filled < len(buffer):
        came = source.readinto(buffer[filled:])
        if not came:
            break
        filled += came
    return filled


@dataclass(slots=True, kw_only=True)
class _HashBeside:
    """A thread that hashes blocks in the order in which they are handed over."""

    digest: Digest
    blocks: Blocks
    _filled: SimpleQueue[tuple[memoryview, int] | None] = field(default_factory=SimpleQueue)
    _free: SimpleQueue[memoryview] = field(default_factory=SimpleQueue)
    _made: list[memoryview] = field(default_factory=list)
    _thread: Thread = field(init=False)

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._hash, name="hash", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._filled.put(None)
        self._thread.join()
        self.blocks.give_back(self._made)

    def take(self) -> memoryview:
        """Give a block to fill; wait for the hashing when all are under way."""
        if len(self._made) < BLOCKS and self._free.empty():
            self._made.append(self.blocks.take())
            return self._made[-1]
        return self._free.get()

    def hand_over(self, block: memoryview, size: int) -> None:
        """Have the beginning of this block hashed next."""
        self._filled.put((block, size))

    def _hash(self) -> None:
        roam()
        while (filled := self._filled.get()) is not None:
            block, size = filled
            self.digest.update(block[:size])
            self._free.put(block)
