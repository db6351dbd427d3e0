# SPDX-License-Identifier: Apache-2.0
"""What a file becomes: the fields of its image.

Answers for the type of a new file, and for what is carried over from the image whose place it takes. Makes no image.

Threading: pure functions, but for reading the first bytes of a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from glancefs.formats import SNIFF_SIZE, detect_type
from glancefs.model import Image, ImageChanges, ImageStatus, ImageType, NewImage
from glancefs.staging import Said
from glancefs.tree.entries import MTIME

CARRIED_OVER: Final = ("disk_format", "container_format", "virtual_size", "min_disk", "min_ram")
"""What describes the data of an image, and goes with them."""


class NewFile(Protocol):
    """A file that is to be an image: a staged one, or one that comes whole."""

    @property
    def said(self) -> Said:
        """What was said of the image to be."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Give some of its first bytes."""
        ...


def new_image(
    file: NewFile,
    *,
    name: str,
    replaced: Image | None,
    is_public: bool | None,
    is_complete: bool,
    dropped: Collection[str],
    checksum: str | None = None,
) -> NewImage:
    """Give what is said of the image that a file becomes.

    Type, visibility, owner and properties of the replaced image are carried over unless something else was said; what
    describes its data (formats and the time of modification) is not. ``dropped`` names what is not to be said after
    all: id, store. Raises InvalidImage, StoreUnavailable.
    """
    said = file.said
    return NewImage(
        name=name,
        type=_type(file, replaced),
        id=None if "id" in dropped else said.id,
        store=None if "store" in dropped else said.store,
        size=None if is_complete else file.size,
        checksum=checksum,
        is_public=said.is_public if said.is_public is not None else replaced.is_public if replaced else is_public,
        properties=_properties(said, replaced),
        protected=bool(said.protected),
        owner=replaced.owner if replaced else None,
        **{field: getattr(said, field) for field in CARRIED_OVER},
    )


def changes_of(file: NewFile, queued: Image) -> ImageChanges:
    """Give what changes of a queued image when it gets a file's data. Raises StoreUnavailable."""
    said = file.said
    fields = {
        field: value
        for field in (*CARRIED_OVER, "is_public", "protected")
        if (value := getattr(said, field)) is not None
    }
    return ImageChanges(
        type=_type(file, queued),
        properties=said.properties,
        removed_properties=said.removed_properties,
        **fields,
    )


def _type(file: NewFile, replaced: Image | None) -> ImageType:
    if file.said.type is not None:
        return file.said.type
    # The type of a placeholder that nobody described is only a guess.
    if replaced is not None and (replaced.status is ImageStatus.AVAILABLE or replaced.type is not ImageType.RAW):
        return replaced.type
    return detect_type(file.read_at(0, SNIFF_SIZE))


def _properties(said: Said, replaced: Image | None) -> Mapping[str, str]:
    carried = {} if replaced is None else dict(replaced.properties)
    carried.pop(MTIME, None)
    for key in said.removed_properties:
        carried.pop(key, None)
    return carried | dict(said.properties)
