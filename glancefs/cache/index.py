# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a partly cached image are here, and what each must be.

Answers for the file beside the data: for each block a digest, zero for one that is not here. The digest finds what a
crash of the machine or a bad disk made of a block; that the whole is the right image, SHA-256 says.

Several processes may have one index open. A block is here from the moment on in which its digest is, so the digest is
written after the data, and taken away before them.

Threading: every method may be called from many threads; who writes holds the lock that the image keeps for it.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from pathlib import Path
from typing import Final, Self

BLOCK: Final = 64 << 10
"""In bytes: what is fetched at the least, and is here wholly or not at all."""

_HEADER: Final = struct.Struct("<16sQI36x")
_MAGIC: Final = b"glancefs blocks\n"
_DIGEST: Final = 4
_PAGE: Final = 1 << 20
"""How many digests are looked through at once."""


def digest(block: memoryview) -> int:
    """Give the digest of a block, which is never zero."""
    # Twice as fast as a CRC; too weak for short texts, which blocks are not.
    return zlib.adler32(block) or 1


class Index:
    """The index of one image."""

    def __init__(self, descriptor: int, *, size: int) -> None:
        self._descriptor: Final = descriptor
        self.blocks: Final = -(-size // BLOCK)
        """How many blocks the image has."""

    @classmethod
    def create(cls, path: Path, *, size: int) -> Self:
        """Make an index of nothing, in place of what may be there. Raises OSError."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, _HEADER.pack(_MAGIC, size, BLOCK), 0)
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor, size=size)

    @classmethod
    def open(cls, path: Path, *, size: int) -> Self | None:
        """Open the index of an image; None for a file that is none, or one of another image. Raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if os.pread(descriptor, _HEADER.size, 0) != _HEADER.pack(_MAGIC, size, BLOCK):
            os.close(descriptor)
            return None
        return cls(descriptor, size=size)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Give its descriptor, for locking it."""
        return self._descriptor

    @property
    def is_gone(self) -> bool:
        """Whether somebody removed it, because the image is whole now or was thrown away."""
        return os.fstat(self._descriptor).st_nlink == 0

    def digests(self, first: int, stop: int) -> array[int]:
        """Give the digests of the blocks from ``first`` up to, not including, ``stop``. Raises OSError."""
        size = (stop - first) * _DIGEST
        found = os.pread(self._descriptor, size, _HEADER.size + first * _DIGEST)
        return array("I", found.ljust(size, b"\0"))

    def write(self, first: int, digests: array[int]) -> None:
        """Say that blocks are here. Raises OSError."""
        os.pwrite(self._descriptor, digests.tobytes(), _HEADER.size + first * _DIGEST)

    def clear(self, first: int, stop: int) -> None:
        """Say that blocks are not here. Raises OSError."""
        self.write(first, array("I", bytes((stop - first) * _DIGEST)))

    def clear_all(self) -> None:
        """Say that nothing is here. Raises OSError."""
        os.ftruncate(self._descriptor, _HEADER.size)

    def missing(self) -> int:
        """Count the blocks that are not here. Raises OSError."""
        pages = range(0, self.blocks, _PAGE)
        return sum(self.digests(page, min(page + _PAGE, self.blocks)).count(0) for page in pages)
