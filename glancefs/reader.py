# SPDX-License-Identifier: Apache-2.0
"""Reading the data of one image: at random or in a run, whatever store holds them.

Answers for turning a store's streams into random access, and for telling data that end too early from an end. Does not
ask who reads: `glancefs.images` does before it hands a reader out.

Threading: a reader belongs to one caller, but `read_at` of a reader with a real file may be called from many threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from glancefs.errors import DataMissing, ImageNotFound
from glancefs.model import Image, ImageStatus, Location
from glancefs.registries.base import Registry
from glancefs.stores.base import Store

CHUNK_SIZE: Final = 1 << 20


class DataReader(Protocol):
    """What reads the data of one image, wherever they are; a context manager. `ImageReader` is one."""

    @property
    def image(self) -> Image:
        """Whose data these are."""
        ...

    @property
    def size(self) -> int:
        """How many bytes they are."""
        ...

    @property
    def file(self) -> BinaryIO | None:
        """A real file, whose ``fileno`` serves pread, sendfile and mmap; None where there is none (yet)."""
        ...

    def __enter__(self) -> Self:
        """Give itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the data."""
        ...

    def close(self) -> None:
        """Let go of the data; may be called twice."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Give the ``size`` bytes from ``offset`` on; fewer only where the image ends."""
        ...

    def iter(self, start: int = 0, stop: int | None = None, *, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Give the bytes from ``start`` up to, not including, ``stop`` (None: the end), in pieces."""
        ...


class ImageReader:
    """The data of an available image, which never change while the reader is open, even if the image is deleted.

    ``moved`` tells where the data are now, for a reader whose data go away under it because they are moved. Raises
    DataMissing, when made, if the store has no data for the image; StoreUnavailable when the engine fails.
    """

    def __init__(
        self,
        *,
        image: Image,
        location: Location,
        store: Store,
        moved: Callable[[], tuple[Store, Location] | None] = lambda: None,
    ) -> None:
        self.image = image
        self.size = image.size
        self._location = location
        self._store = store
        self._moved = moved
        self._stream = store.open(location)
        self._position = 0
        self.file: BinaryIO | None = self._stream if store.capabilities.real_files else None
        """A real file, whose ``fileno`` serves pread, sendfile and mmap; None where the store has none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the data; may be called twice."""
        self._stream.close()

    def read_at(self, offset: int, size: int) -> bytes:
        """Give the ``size`` bytes from ``offset`` on; fewer only where the image ends.

        Raises DataMissing when the stored data end before the image does.
        """
        size = max(0, min(size, self.size - offset))
        pieces = []
        while size:
            piece = self._pread(offset, size) if self.file is not None else self._read_stream(offset, size)
            if not piece:
                message = f"The data of image {self.image.id!r} end at byte {offset}, not at {self.size}."
                raise DataMissing(message)
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def iter(self, start: int = 0, stop: int | None = None, *, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Give the bytes from ``start`` up to, not including, ``stop`` (None: the end), in pieces.

        Raises DataMissing as `read_at` does.
        """
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            piece = self.read_at(start, min(chunk_size, stop - start))
            yield piece
            start += len(piece)

    def _pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._stream.fileno(), size, offset)

    def _read_stream(self, offset: int, size: int) -> bytes:
        # Readers in a run share one stream.
        if offset != self._position:
            self._move_to(offset)
        try:
            piece = self._stream.read(size)
        except DataMissing:
            found = self._moved()
            if found is None or found[1] == self._location:
                raise
            self._store, self._location = found
            self._open_at(offset)
            piece = self._stream.read(size)
        self._position += len(piece)
        return piece

    def _move_to(self, offset: int) -> None:
        if self._stream.seekable():
            self._stream.seek(offset)
        else:
            self._open_at(offset)
        self._position = offset

    def _open_at(self, offset: int) -> None:
        self._stream.close()
        self._stream = self._store.open(self._location, offset)


def open_reader(image: Image, *, registry: Registry, store_of: Callable[[Location], Store]) -> ImageReader:
    """Open the data of an image, wherever they are by now.

    Raises ImageNotFound when it has none (yet) or was deleted, DataMissing when they are lost, and what ``store_of``
    raises.
    """

    def moved() -> tuple[Store, Location] | None:
        location = registry.get(image.id).location
        return None if location is None else (store_of(location), location)

    if image.status is not ImageStatus.AVAILABLE or image.location is None:
        message = f"Image {image.id!r} has no data: its status is {image.status}."
        raise ImageNotFound(message)
    try:
        return ImageReader(image=image, location=image.location, store=store_of(image.location), moved=moved)
    except DataMissing:
        # Deleted or moved between the look at the row and this: not damage.
        current = registry.get(image.id)
        if current.status is ImageStatus.DELETED:
            raise ImageNotFound.by_id(image.id) from None
        if current.location == image.location:
            raise
    return open_reader(current, registry=registry, store_of=store_of)
