# SPDX-License-Identifier: Apache-2.0
"""The data of images on their way out over HTTP, the same for every door.

Answers for the bodies of answers that carry data (seed checklist, statements 10 and 11). The server sends slices of
real files without copying them.

Threading: a body belongs to one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Protocol

from gateway.http.sendfile import FileSlice
from gateway.ranges import ByteRange

DATA_TYPE: Final = "application/octet-stream"

_SMALL: Final = 16_384
"""Up to this size data are read, so that they leave in one packet with the head of the answer."""


class Data(Protocol):
    """Data that can be sent: an `glancefs.reader.ImageReader`, or what reads like one."""

    @property
    def file(self) -> BinaryIO | None:
        """A real file that holds them, if one does."""
        ...

    def iter(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Give the bytes from ``start`` up to, not including, ``stop``, in pieces."""
        ...

    def close(self) -> None:
        """Let go of them."""
        ...


class ImageBody:
    """The body of an answer with an image's data; closing it lets go of them."""

    def __init__(self, reader: Data, pieces: Iterable[bytes | ByteRange]) -> None:
        self._reader = reader
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes | FileSlice]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            elif self._reader.file is not None and len(piece) > _SMALL:
                yield FileSlice(self._reader.file, piece.start, piece.stop)
            else:
                yield from self._reader.iter(piece.start, piece.stop)

    def close(self) -> None:
        """Let go of the data."""
        self._reader.close()
