# SPDX-License-Identifier: Apache-2.0
"""The data of images on their way in and out of HTTP.

Answers for telling whether a request brings data, and of which length (seed checklist, statement 22), and for the
bodies of answers that carry data (statements 10 and 11). The server sends slices of real files without copying them.

Threading: a body belongs to one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.http.sendfile import FileSlice
from gateway.rest.dialect import Dialect
from gateway.rest.ranges import ByteRange
from gateway.wsgi import Request
from glancefs.errors import InvalidRequest
from glancefs.reader import ImageReader
from glancefs.stores.base import Source

DATA_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Data that a request brings."""

    source: Source
    size: int | None
    """None for a body in chunks."""


def upload_of(request: Request, dialect: Dialect) -> Upload | None:
    """Give the data that a request brings, none of them read yet; None for a request without.

    An empty body is an empty image where it says that it is one by its Content-Type. Raises InvalidRequest for a body
    that is no plain data.
    """
    size = request.content_length
    if request.is_chunked:
        size = None
    elif size is None or (size == 0 and (dialect.sends_empty_bodies or request.content_type != DATA_TYPE)):
        return None
    if request.content_type.startswith("multipart/"):
        message = "The body is to be the data themselves, not a form that holds them."
        raise InvalidRequest(message)
    if request.header("content-range") is not None:
        message = "An image is sent whole: a body with Content-Range is not taken."
        raise InvalidRequest(message)
    return Upload(source=request.source, size=size)


class NoData:
    """The source of an image that has none."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Be at the end."""
        del buffer
        return 0


class ImageBody:
    """The body of an answer with an image's data; closing it lets go of them."""

    def __init__(self, reader: ImageReader, pieces: Iterable[bytes | ByteRange]) -> None:
        self._reader = reader
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes | FileSlice]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            elif self._reader.file is not None:
                yield FileSlice(self._reader.file, piece.start, piece.stop)
            else:
                yield from self._reader.iter(piece.start, piece.stop)

    def close(self) -> None:
        """Let go of the data."""
        self._reader.close()
