# SPDX-License-Identifier: Apache-2.0
"""Images of a data folder of this machine, worked on directly; a server on the same folder may run beside.

Answers for doing it as the admin `local`, which is what whoever may write the folder is.

Threading: belongs to one command.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from glancefs.assembly import Assembly, assemble
from glancefs.cli.backend import Progress
from glancefs.config import Config
from glancefs.context import LOCAL_USER, RequestContext
from glancefs.model import Image, ImageChanges, NewImage
from glancefs.registries.base import ImageQuery

_CALLER: Final = RequestContext(user=LOCAL_USER, is_admin=True)
_EMBEDDED: Final = "sqlite:///"
_PAGE: Final = 500


class LocalBackend:
    """The images of one assembled core."""

    def __init__(self, core: Assembly) -> None:
        self.core = core
        self._images = core.images

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.core.close()

    def find_all(self, query: ImageQuery, *, limit: int | None = None) -> Iterator[Image]:
        """See `Backend`."""
        size = _PAGE if limit is None else max(1, min(_PAGE, limit))
        return islice(self._images.find_all(_CALLER, query, page_size=size), limit)

    def get(self, image_id: str) -> Image:
        """See `Backend`."""
        return self._images.get(_CALLER, image_id)

    def add(self, new: NewImage, data: BinaryIO | None, *, size: int | None, progress: Progress) -> Image:
        """See `Backend`."""
        if data is None:
            return self._images.create(_CALLER, new)
        return self._images.add(_CALLER, new, _Reported(data, progress), size=size)

    def upload(self, image_id: str, data: BinaryIO, *, size: int | None, progress: Progress) -> Image:
        """See `Backend`."""
        return self._images.upload(_CALLER, image_id, _Reported(data, progress), size=size)

    def update(self, image: Image, changes: ImageChanges) -> Image:
        """See `Backend`."""
        return self._images.update(_CALLER, image.id, changes)

    def delete(self, image: Image) -> None:
        """See `Backend`."""
        self._images.delete(_CALLER, image.id)

    def move(self, image: Image, *, to: str, progress: Progress) -> Image:
        """See `Backend`."""
        return self.core.relocation.move(_CALLER, image.id, to=to, progress=progress)

    def read(self, image: Image, *, start: int = 0) -> Generator[bytes]:
        """See `Backend`."""
        with self._images.open_image(image) as reader:
            yield from reader.iter(start)


class _Reported:
    """A source that tells how far it is."""

    def __init__(self, data: BinaryIO, progress: Progress) -> None:
        self._readinto = data.readinto  # type: ignore[attr-defined]  # BinaryIO leaves out what all binary files have
        self._progress = progress

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, possibly in part."""
        count = int(self._readinto(buffer) or 0)
        self._progress(count)
        return count


def open_folder(config: Config, *, makes_registry: bool) -> LocalBackend:
    """Open the images of a configuration. Raises ConfigError when there is no registry and none is to be made."""
    is_new = config.registry.startswith(_EMBEDDED) and not Path(config.registry.removeprefix(_EMBEDDED)).exists()
    return LocalBackend(assemble(config, migrate=makes_registry and is_new))
