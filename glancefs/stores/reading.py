# SPDX-License-Identifier: Apache-2.0
"""Reading of open files: a range of one, and the checksum of a whole one.

Answers for reading exactly what was asked for, and for passing over holes. Does not know where files lie.

Threading: a `FileRange` belongs to one caller; hashing leaves the position of the file undefined.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Final

from glancefs.stores.pipeline import BLOCK, Digest, checksum_text, sha256

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class FileRange(io.RawIOBase):
    """Part of an open file, read from where it stands."""

    def __init__(self, descriptor: int, *, start: int, stop: int | None) -> None:
        super().__init__()
        self._descriptor: Final = descriptor
        self._position = start
        self._stop = stop

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with what comes next of the range, possibly in part; 0 at its end."""
        with memoryview(buffer).cast("B") as view:
            room = len(view) if self._stop is None else max(0, min(len(view), self._stop - self._position))
            size = os.preadv(self._descriptor, [view[:room]], self._position) if room else 0
        self._position += size
        return size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def checksum_of(descriptor: int) -> str:
    """Hash a file from its beginning; holes are hashed as the zeros they stand for, without reading them."""
    digest = sha256()
    hash_range(digest, descriptor, start=0, stop=os.fstat(descriptor).st_size)
    return checksum_text(digest)


_ZEROS: Final = bytes(BLOCK)


def hash_range(digest: Digest, descriptor: int, *, start: int, stop: int, room: memoryview | None = None) -> None:
    """Hash a part of a file, holes as `checksum_of` does. Raises OSError when the file ends before ``stop``.

    ``room`` is memory to read into, for who hashes many parts; the more there is, the fewer turns it takes.
    """
    block = memoryview(bytearray(min(BLOCK, max(stop - start, 0)))) if room is None else room
    zeros = memoryview(_ZEROS)
    position = start
    while position < stop:
        data_start, data_stop = _next_data(descriptor, position, stop)
        while position < data_start:
            size = min(data_start - position, len(zeros))
            digest.update(zeros[:size])
            position += size
        while position < data_stop:
            size = os.preadv(descriptor, [block[: min(data_stop - position, len(block))]], position)
            if not size:
                raise OSError("the file shrank while it was read")
            digest.update(block[:size])
            position += size


def _next_data(descriptor: int, position: int, end: int) -> tuple[int, int]:
    """Give where data begin and end at or after a position; ``(end, end)`` when only a hole follows."""
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
        return min(start, end), min(os.lseek(descriptor, start, os.SEEK_HOLE), end)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return end, end
