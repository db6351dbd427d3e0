# SPDX-License-Identifier: Apache-2.0
"""What a staged file becomes: the fields of its image.

Answers for the type of a new file, and for what is carried over from the image whose place it takes. Makes no image.

Threading: pure functions, but for reading the first bytes of a staged file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from glancefs.formats import SNIFF_SIZE, detect_type
from glancefs.model import Image, ImageChanges, ImageStatus, ImageType, NewImage
from glancefs.staging import Said, StagedUpload
from glancefs.tree.entries import MTIME

CARRIED_OVER: Final = ("disk_format", "container_format", "virtual_size", "min_disk", "min_ram")
"""What describes the data of an image, and goes with them."""


def new_image(
    staged: StagedUpload,
    *,
    name: str,
    replaced: Image | None,
    is_public: bool | None,
    is_complete: bool,
    dropped: Collection[str],
) -> NewImage:
    """Give what is said of the image that a staged file becomes.

    Type, visibility, owner and properties of the replaced image are carried over unless something else was said; what
    describes its data (formats and the time of modification) is not. ``dropped`` names what is not to be said after
    all: id, store. Raises InvalidImage, StoreUnavailable.
    """
    said = staged.said
    return NewImage(
        name=name,
        type=_type(staged, replaced),
        id=None if "id" in dropped else said.id,
        store=None if "store" in dropped else said.store,
        size=None if is_complete else staged.size,
        is_public=said.is_public if said.is_public is not None else replaced.is_public if replaced else is_public,
        properties=_properties(said, replaced),
        protected=bool(said.protected),
        owner=replaced.owner if replaced else None,
        **{field: getattr(said, field) for field in CARRIED_OVER},
    )


def changes_of(staged: StagedUpload, queued: Image) -> ImageChanges:
    """Give what changes of a queued image when it gets a staged file's data. Raises StoreUnavailable."""
    said = staged.said
    fields = {
        field: value
        for field in (*CARRIED_OVER, "is_public", "protected")
        if (value := getattr(said, field)) is not None
    }
    return ImageChanges(
        type=_type(staged, queued),
        properties=said.properties,
        removed_properties=said.removed_properties,
        **fields,
    )


def _type(staged: StagedUpload, replaced: Image | None) -> ImageType:
    if staged.said.type is not None:
        return staged.said.type
    # The type of a placeholder that nobody described is only a guess.
    if replaced is not None and (replaced.status is ImageStatus.AVAILABLE or replaced.type is not ImageType.RAW):
        return replaced.type
    return detect_type(staged.read_at(0, SNIFF_SIZE))


def _properties(said: Said, replaced: Image | None) -> Mapping[str, str]:
    carried = {} if replaced is None else dict(replaced.properties)
    carried.pop(MTIME, None)
    for key in said.removed_properties:
        carried.pop(key, None)
    return carried | dict(said.properties)
