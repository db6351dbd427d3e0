# SPDX-License-Identifier: Apache-2.0
"""Where a command finds the images: in a data folder of this machine or on a server, alike.

Answers for what commands on images need, and for finding the image that a user means. The two kinds of places are
`glancefs.cli.local` and `glancefs.cli.remote`; no command knows which it has.

Threading: a backend belongs to one command.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from glancefs.errors import ImageNotFound, InvalidQuery, InvalidRequest
from glancefs.model import Image, ImageChanges, NewImage
from glancefs.registries.base import ImageQuery

MOST_NAMED: Final = 10
"""How many images of one name are told when a name could mean any of them."""

Progress = Callable[[int], object]
"""Called with the bytes of each step."""


class Backend(Protocol):
    """The images, wherever they are; a context manager. Raises the errors of the tree."""

    def __enter__(self) -> Self:
        """Give itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of everything."""
        ...

    def find_all(self, query: ImageQuery, *, limit: int | None = None) -> Iterator[Image]:
        """Give what the caller may see of what the query matches, at the most ``limit``."""
        ...

    def get(self, image_id: str) -> Image:
        """Give one image."""
        ...

    def add(self, new: NewImage, data: BinaryIO | None, *, size: int | None, progress: Progress) -> Image:
        """Add an image, of ``size`` bytes if that is known; queued without data."""
        ...

    def upload(self, image_id: str, data: BinaryIO, *, size: int | None, progress: Progress) -> Image:
        """Bring the data of a queued image."""
        ...

    def update(self, image: Image, changes: ImageChanges) -> Image:
        """Change an image."""
        ...

    def delete(self, image: Image) -> None:
        """Delete an image."""
        ...

    def move(self, image: Image, *, to: str, progress: Progress) -> Image:
        """Move an image's data to another store; ``progress`` is told of bytes copied and of bytes read back."""
        ...

    def read(self, image: Image, *, start: int = 0) -> Generator[bytes]:
        """Give an image's data from ``start`` on; their checksum is the caller's to verify."""
        ...


def image_meant(backend: Backend, text: str) -> Image:
    """Find the image that has this identifier, or else the one that has this name.

    Raises ImageNotFound; InvalidQuery when several images have the name.
    """
    # What can't be an identifier may still be a name.
    with suppress(ImageNotFound, InvalidRequest):
        return backend.get(text)
    query = ImageQuery(is_public=None, name=text)
    named = list(backend.find_all(query, limit=MOST_NAMED + 1))
    if not named:
        message = f"There is no image with the id or the name {text!r}."
        raise ImageNotFound(message)
    if len(named) > 1:
        ids = ", ".join(image.id for image in named[:MOST_NAMED])
        more = ", …" if len(named) > MOST_NAMED else ""
        message = f"Several images are called {text!r}; say which by its id: {ids}{more}."
        raise InvalidQuery(message)
    return named[0]
