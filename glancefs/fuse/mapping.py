# SPDX-License-Identifier: Apache-2.0
"""A file in memory: what the page cache has of it goes to the kernel without being copied here.

Answers for giving parts of a file that are in memory, and only those, so that nobody waits for a disk. They are for the
kernel's eyes: where bytes are lost meanwhile it answers with an error (EFAULT), while this process would be ended by a
signal if it looked itself (mmap(2), SIGBUS).

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final, Self

WORTH_IT: Final = 64 << 10
"""From how many bytes on a copy costs more than looking whether they are in memory (mincore(2))."""

_FAILED: Final = ctypes.c_void_p(-1).value
_MOST_PAGES: Final = 512
_IN_MEMORY: Final = b"\x01" * _MOST_PAGES


class _Calls:
    """System calls that Python does not offer, or not with an address; they return at once, so no lock is let go."""

    def __init__(self) -> None:
        library = ctypes.PyDLL(None, use_errno=True)
        size, address = ctypes.c_size_t, ctypes.c_void_p
        self.map: Final = library.mmap
        self.map.argtypes = (address, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
        self.map.restype = address
        self.unmap: Final = library.munmap
        self.unmap.argtypes = (address, size)
        self.look: Final = library.mincore
        self.look.argtypes = (address, size, ctypes.c_char_p)
        self.advise: Final = library.madvise
        self.advise.argtypes = (address, size, ctypes.c_int)


_CALLS: Final = _Calls()


class FileMapping:
    """An open file of which the data never change, mapped whole."""

    def __init__(self, *, descriptor: int, address: int, size: int) -> None:
        self._descriptor: Final = descriptor
        self._address: Final = address
        self._size: Final = size
        self._view: Final = memoryview((ctypes.c_char * size).from_address(address)).cast("B").toreadonly()
        self._found: Final = ctypes.create_string_buffer(_MOST_PAGES)
        self._shown: tuple[int, int] | None = None
        """What was given last: where, and how much; until it is let go it counts as memory of this process."""

    @classmethod
    def of(cls, descriptor: int, size: int) -> Self | None:
        """Map a file of this size; None for one that can't be, or of which Linux would not tell what is in memory."""
        if size < WORTH_IT or os.fstat(descriptor).st_uid != os.geteuid():
            return None
        address = _CALLS.map(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        return None if address == _FAILED else cls(descriptor=descriptor, address=address, size=size)

    def part(self, offset: int, size: int) -> memoryview | None:
        """Give bytes if they are in memory; None where they are not, or the file has become shorter."""
        self.rest()
        start = offset & -mmap.PAGESIZE
        length = offset + size - start
        pages = -(-length // mmap.PAGESIZE)
        if pages > _MOST_PAGES or offset + size > self._size:
            return None
        if _CALLS.look(self._address + start, length, self._found) or self._found.raw[:pages] != _IN_MEMORY[:pages]:
            return None
        if os.fstat(self._descriptor).st_size < self._size:
            # Behind its end a page holds zeros, which would pass for data.
            return None
        self._shown = start, length
        return self._view[offset : offset + size]

    def rest(self) -> None:
        """Let go of what was given last."""
        if self._shown is not None:
            start, length = self._shown
            _CALLS.advise(self._address + start, length, mmap.MADV_DONTNEED)
            self._shown = None

    def close(self) -> None:
        """Unmap it; nothing that was given may be used afterwards."""
        self._view.release()
        _CALLS.unmap(self._address, self._size)
