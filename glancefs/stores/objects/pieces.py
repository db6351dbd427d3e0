# SPDX-License-Identifier: Apache-2.0
"""Memory for the parts of an upload, used again and again, and read by HTTP clients without a copy.

Answers for handing a part to a client that expects a file. Does not send anything.

Threading: a piece belongs to one thread at a time.
"""

from __future__ import annotations

import hashlib
import io
import mmap
from typing import Final

_CHUNK: Final = 128 << 10
"""In bytes: what a client is given at once. It asks for 16 KiB, which costs it a system call each; much more would no
longer be in the processor's cache when it is sent."""


class Piece:
    """Room for one part."""

    def __init__(self, size: int) -> None:
        # Pages of an anonymous map exist once they are touched: small data hold only what came.
        self._room: Final = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.size: Final = size
        self.filled = 0

    def take(self, data: memoryview) -> int:
        """Take the beginning of these bytes, as many as there is room for; give their number."""
        count = min(len(data), self.size - self.filled)
        self._room[self.filled : self.filled + count] = data[:count]
        self.filled += count
        return count

    def content(self) -> memoryview:
        """Give what came; it is good until the piece is used again."""
        return self._room[: self.filled]


class PieceReader:
    """Bytes as a file for HTTP clients, which may get more at once than they ask for; hashed on the way with MD5."""

    def __init__(self, data: memoryview | bytes) -> None:
        self._data: Final = memoryview(data)
        self._position = 0
        self._digest = hashlib.md5(usedforsecurity=False)
        self._hashed = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1, /) -> memoryview | bytes:
        """Give what comes next, ``b""`` at the end."""
        stop = len(self._data) if size < 0 else self._position + max(size, _CHUNK)
        chunk = self._data[self._position : stop]
        if self._position == self._hashed:
            self._digest.update(chunk)
            self._hashed += len(chunk)
        self._position += len(chunk)
        return chunk if len(chunk) else b""

    def md5(self) -> str:
        """Give the MD5 of all of it, in hex digits."""
        self._digest.update(self._data[self._hashed :])
        self._hashed = len(self._data)
        return self._digest.hexdigest()

    def tell(self) -> int:
        """Give the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the position: a client that begins again goes back to where it was."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, base + offset)
        return self._position
