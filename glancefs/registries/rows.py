# SPDX-License-Identifier: Apache-2.0
"""Images as rows of the database, and back.

Answers for what each column holds for an image; both ways give the identity. Knows no SQL.

Threading: pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

from glancefs.model import NO_PROPERTIES, Image, ImageStatus, ImageType, Location
from glancefs.paths import path_of, split
from glancefs.registries.schema import images

IMAGE_COLUMNS: Final = tuple(
    column for column in images.c if column.name not in {"seq", "shelf", "grave", "changed_at", "folder", "place"}
)
"""What a query selects to make images of its rows, in the order of the table."""


class Shelf(Enum):
    """What decides who sees a living image, and in which lists."""

    LISTED = 0
    """Public and available: everybody's."""
    PUBLIC_WITHOUT_DATA = 1
    PRIVATE = 2
    PRIVATE_WITHOUT_DATA = 3


class Grave(Enum):
    """What decides who sees a tombstone."""

    LISTED = 0
    """It was public and had data: those who saw the image may learn that it is gone."""
    PUBLIC_WITHOUT_DATA = 1
    PRIVATE = 2


_TYPES: Final = {str(type_): type_ for type_ in ImageType}
_STATUSES: Final = {str(status): status for status in ImageStatus}


def shelf_of(image: Image) -> Shelf | None:
    """Tell on which shelf an image is; None for a deleted one."""
    if image.status is ImageStatus.DELETED:
        return None
    if image.status is ImageStatus.AVAILABLE:
        return Shelf.LISTED if image.is_public else Shelf.PRIVATE
    return Shelf.PUBLIC_WITHOUT_DATA if image.is_public else Shelf.PRIVATE_WITHOUT_DATA


def grave_of(image: Image) -> Grave | None:
    """Tell in which grave a deleted image is; None for a living one."""
    if image.status is not ImageStatus.DELETED:
        return None
    if not image.is_public:
        return Grave.PRIVATE
    return Grave.PUBLIC_WITHOUT_DATA if image.checksum is None else Grave.LISTED


def folder_of(name: str) -> str:
    """Give the path of the folder in which an image of this name is, and a slash; empty for the root."""
    return folder_key(split(path_of(name))[0])


def folder_key(path: str) -> str:
    """Give a folder's path as it is kept; then all paths below it begin with it, and no others."""
    return f"{path}/" if path else ""


def seconds(time: datetime) -> int:
    """Give whole seconds since the epoch."""
    return int(time.timestamp() // 1)


def values_of(image: Image) -> dict[str, Any]:
    """Give the columns of an image, all but ``seq`` and ``place``."""
    shelf, grave = shelf_of(image), grave_of(image)
    updated_at = seconds(image.updated_at)
    deleted_at = None if image.deleted_at is None else seconds(image.deleted_at)
    return {
        "id": image.id,
        "revision": image.revision,
        "shelf": None if shelf is None else shelf.value,
        "grave": None if grave is None else grave.value,
        "name": image.name,
        "type": str(image.type),
        "status": str(image.status),
        "size": image.size,
        "checksum": image.checksum,
        "store": image.store,
        "location": None if image.location is None else str(image.location),
        "owner": image.owner,
        "is_public": image.is_public,
        "properties": json.dumps(dict(image.properties)) if image.properties else "{}",
        "created_at": seconds(image.created_at),
        "updated_at": updated_at,
        "deleted_at": deleted_at,
        "changed_at": updated_at if deleted_at is None else max(updated_at, deleted_at),
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "virtual_size": image.virtual_size,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "folder": None if image.status is ImageStatus.DELETED else folder_of(image.name),
    }


def image_of(row: Iterable[Any]) -> Image:
    """Make an image of a row of `IMAGE_COLUMNS`."""
    (
        id,
        revision,
        name,
        type,
        status,
        size,
        checksum,
        store,
        location,
        owner,
        is_public,
        properties,
        created_at,
        updated_at,
        deleted_at,
        disk_format,
        container_format,
        virtual_size,
        min_disk,
        min_ram,
        protected,
    ) = row
    return Image(
        id=id,
        revision=revision,
        name=name,
        type=_TYPES[type],
        status=_STATUSES[status],
        size=size,
        checksum=checksum,
        store=store,
        location=None if location is None else Location.parse(location),
        owner=owner,
        is_public=bool(is_public),
        properties=properties_of(properties),
        created_at=datetime.fromtimestamp(created_at, UTC),
        updated_at=datetime.fromtimestamp(updated_at, UTC),
        deleted_at=None if deleted_at is None else datetime.fromtimestamp(deleted_at, UTC),
        disk_format=disk_format,
        container_format=container_format,
        virtual_size=virtual_size,
        min_disk=min_disk,
        min_ram=min_ram,
        protected=bool(protected),
    )


def properties_of(text: str) -> Mapping[str, str]:
    """Read the column of properties."""
    return NO_PROPERTIES if text == "{}" else MappingProxyType(json.loads(text))


def property_digest(key: str, value: str) -> str:
    """Give what a property is found by: as good as the pair itself, and short whatever the value is."""
    return blake2b(f"{key}={value}".encode(errors="surrogatepass"), digest_size=16).hexdigest()


def property_digests(properties: Mapping[str, str]) -> frozenset[str]:
    """Give the digests of all properties of an image."""
    return frozenset(property_digest(key, value) for key, value in properties.items())
