# SPDX-License-Identifier: Apache-2.0
"""The data of one image of a server, range by range: what remote reading is made of.

Answers for asking for a range, and for its coming whole or not at all. Reads nothing ahead and keeps nothing:
`SourceReader` is the plainest reader over such a source.

Threading: a source and its readers may be used from many threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from glancefs.client import Client
from glancefs.errors import DataMissing, NotFound, Unavailable
from glancefs.model import Image
from glancefs.reader import CHUNK_SIZE


class RangeSource(Protocol):
    """Data that are somewhere else, never change, and come in ranges."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    @property
    def checksum(self) -> str | None:
        """``sha256:`` and the digest of all of them; None where it is not known."""
        ...

    def fetch(self, start: int, stop: int) -> bytes | bytearray:
        """Give the bytes from ``start`` up to, not including, ``stop``, all of them; both lie within the data.

        Raises Unavailable, DataMissing, and what the server refuses with.
        """
        ...


class RemoteSource:
    """The data of an available image of the server that ``client`` speaks to."""

    def __init__(self, *, client: Client, image: Image) -> None:
        self._client: Final = client
        self._image: Final = image

    @property
    def size(self) -> int:
        """See `RangeSource.size`."""
        return self._image.size

    @property
    def checksum(self) -> str | None:
        """See `RangeSource.checksum`."""
        return self._image.checksum

    def fetch(self, start: int, stop: int) -> bytes | bytearray:
        """See `RangeSource.fetch`. Raises DataMissing for an image that was deleted since it was opened."""
        if start >= stop:
            return b""
        try:
            data = self._client.get_range(self._image.id, start, stop)
        except NotFound:
            message = f"Image {self._image.id!r} was deleted on {self._client.url} while it was read."
            raise DataMissing(message) from None
        if len(data) != stop - start:
            message = (
                f"{self._client.url} answers with {len(data)} bytes of an image where {stop - start} were asked for."
            )
            raise Unavailable(message)
        return data


class SourceReader:
    """Reads a source as `glancefs.reader.ImageReader` reads a store: each range is one request."""

    def __init__(self, *, image: Image, source: RangeSource) -> None:
        self.image = image
        self.size = source.size
        self.file: BinaryIO | None = None
        self._source = source

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the data; may be called twice."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Give the ``size`` bytes from ``offset`` on; fewer only where the image ends. Raises as `fetch`."""
        stop = min(offset + max(0, size), self.size)
        return bytes(self._source.fetch(offset, stop)) if offset < stop else b""

    def iter(self, start: int = 0, stop: int | None = None, *, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Give the bytes from ``start`` up to, not including, ``stop`` (None: the end), in pieces."""
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            piece = self.read_at(start, min(chunk_size, stop - start))
            yield piece
            start += len(piece)
