# SPDX-License-Identifier: Apache-2.0
"""A stretch of an open file as a piece of a response, sent without passing through Python.

Answers for `FileSlice` and for `FileWrapper`, which is `wsgi.file_wrapper` (PEP 3333). Does not send: that is the
wire's part. Neither opens files.

Threading: a slice is immutable and reads by `pread`, so many threads may share its file; a
wrapper belongs to one request.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Protocol

READ_BLOCK = 256 * 1024
"""How much is read at a time where sendfile(2) can't be used (TLS)."""


class HasDescriptor(Protocol):
    """An open file, to the extent that matters here."""

    def fileno(self) -> int:
        """Give the file descriptor."""


class ReadableFile(Protocol):
    """What an application hands to `wsgi.file_wrapper`."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; nothing means the end."""


class FileShrank(Exception):
    """The file ends before the slice does; what was promised can't be sent any more."""


class FileSlice:
    """The bytes `start` to `stop` of an open regular file (half open), not yet read.

    A WSGI application yields it among its byte chunks, and the server sends it by sendfile(2). The application closes
    the file in its iterable's `close()`, not earlier. Middleware that knows nothing of slices iterates over it or
    takes `bytes()` of it and gets the same bytes.
    """

    __slots__ = ("file", "start", "stop")

    def __init__(self, file: HasDescriptor, start: int, stop: int) -> None:
        if not 0 <= start <= stop:
            raise ValueError(f"a slice can't go from {start} to {stop}")
        self.file = file
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[bytes]:
        position = self.start
        while position < self.stop:
            data = self.read_at(position)
            yield data
            position += len(data)

    def __bytes__(self) -> bytes:
        return b"".join(self)

    def read_at(self, position: int) -> bytes:
        """Read the slice's next block, from an absolute position in the file. Raises FileShrank at a premature end."""
        data = os.pread(self.file.fileno(), min(READ_BLOCK, self.stop - position), position)
        if not data:
            raise FileShrank(f"the file ended {self.stop - position} bytes early")
        return data


class FileWrapper:
    """`wsgi.file_wrapper`: an open file as a response, from where it stands to its end (PEP 3333)."""

    def __init__(self, file: ReadableFile, block_size: int = READ_BLOCK) -> None:
        self._file = file
        self._block_size = block_size

    def __iter__(self) -> Iterator[bytes | FileSlice]:
        whole = self._as_slice()
        if whole is not None:
            yield whole
            return
        while data := self._file.read(self._block_size):
            yield data

    def close(self) -> None:
        """Close the file, as PEP 3333 asks of the wrapper."""
        close = getattr(self._file, "close", None)
        if close is not None:
            close()

    def _as_slice(self) -> FileSlice | None:
        tell = getattr(self._file, "tell", None)
        fileno = getattr(self._file, "fileno", None)
        if tell is None or fileno is None:
            return None
        try:
            status = os.fstat(fileno())
            position = tell()
        except OSError:  # an in-memory file has the method but no descriptor
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileSlice(_Descriptor(fileno()), position, max(position, status.st_size))


class _Descriptor:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd
