# SPDX-License-Identifier: Apache-2.0
"""What an image looks like to a caller: as JSON in lists and answers, and as headers.

Answers for the names and forms of everything that is told about an image (seed checklist, statements 3, 4, 6, 7, 9 and
13, and 32 for ``/v1/``). Decides nothing about who may see it.

Threading: pure functions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from gateway.rest.dialect import Dialect
from glancefs.headers import PROPERTY_PREFIX, encode_header_value
from glancefs.model import Image, ImageStatus


def uri_of(image: Image, base_url: str, dialect: Dialect) -> str:
    """Give the URI that leads straight to the image; an id needs no escape in it."""
    return f"{base_url}{dialect.prefix}/images/{image.id}"


def time_text(time: datetime | None, dialect: Dialect) -> str:
    """Give a time in UTC, to the second and without its zone; empty for none (seed: ``deleted_at``)."""
    return "" if time is None else time.isoformat(dialect.time_separator)[:19]


def etag_of(image: Image) -> str | None:
    """Give the strong entity tag of the data (RFC 9110, section 8.8.3): their checksum; None while there are none."""
    if image.status is not ImageStatus.AVAILABLE or image.checksum is None:
        return None
    return f'"{image.checksum}"'


def last_modified(image: Image) -> str:
    """Give the value of ``Last-Modified``."""
    return format_datetime(image.updated_at.replace(tzinfo=UTC), usegmt=True)


def summary(image: Image, base_url: str, dialect: Dialect) -> dict[str, Any]:
    """Give an image as the plain list shows it."""
    return {
        "uri": uri_of(image, base_url, dialect),
        "id": image.id,
        "name": image.name,
        "type": image.type.value,
        "size": str(image.size) if dialect.numbers_are_text else image.size,
    }


def detail(image: Image, base_url: str, dialect: Dialect) -> dict[str, Any]:
    """Give an image with everything that is told about it; what is not set is empty."""
    said: dict[str, Any] = {
        "uri": uri_of(image, base_url, dialect),
        "id": image.id,
        "name": image.name,
        "type": image.type.value,
        "size": str(image.size) if dialect.numbers_are_text else image.size,
        "store": image.store,
        "created_at": time_text(image.created_at, dialect),
        "updated_at": time_text(image.updated_at, dialect),
        "deleted_at": time_text(image.deleted_at, dialect),
        "status": dialect.status_word(image.status),
        "is_public": image.is_public,
        "owner": image.owner or "",
        "disk_format": image.disk_format or "",
        "container_format": image.container_format or "",
        "protected": image.protected,
        "properties": dict(image.properties),
    }
    if dialect.shows_checksum:
        said["checksum"] = image.checksum or ""
    return said | (_texts(image) if dialect.numbers_are_text else _numbers(image))


def meta_headers(image: Image, base_url: str, dialect: Dialect) -> list[tuple[str, str]]:
    """Give the headers that tell everything about an image; optional fields that are not set are left out."""
    headers = [
        ("x-image-meta-uri", uri_of(image, base_url, dialect)),
        ("x-image-meta-id", image.id),
        ("x-image-meta-name", encode_header_value(image.name)),
        ("x-image-meta-type", image.type.value),
        ("x-image-meta-size", str(image.size)),
        ("x-image-meta-store", image.store),
        ("x-image-meta-created_at", time_text(image.created_at, dialect)),
        ("x-image-meta-updated_at", time_text(image.updated_at, dialect)),
        ("x-image-meta-deleted_at", time_text(image.deleted_at, dialect)),
        ("x-image-meta-status", dialect.status_word(image.status)),
        ("x-image-meta-is_public", str(image.is_public)),
        ("x-image-meta-protected", str(image.protected)),
    ]
    if image.owner is not None:
        headers.append(("x-image-meta-owner", encode_header_value(image.owner)))
    if image.checksum is not None and dialect.shows_checksum:
        headers.append(("x-image-meta-checksum", image.checksum))
    for name in ("disk_format", "container_format", "virtual_size", "min_disk", "min_ram"):
        value = getattr(image, name)
        if value is not None:
            headers.append((f"x-image-meta-{name}", str(value)))
    if image.properties:
        headers += [(PROPERTY_PREFIX + key, encode_header_value(value)) for key, value in image.properties.items()]
    return headers


def _texts(image: Image) -> dict[str, Any]:
    return {
        "virtual_size": "" if image.virtual_size is None else str(image.virtual_size),
        "min_disk": "" if image.min_disk is None else str(image.min_disk),
        "min_ram": "" if image.min_ram is None else str(image.min_ram),
    }


def _numbers(image: Image) -> dict[str, Any]:
    # Typed clients of /v1/ have nowhere to put an empty text; zero and null are what Glance says.
    return {"virtual_size": image.virtual_size, "min_disk": image.min_disk or 0, "min_ram": image.min_ram or 0}
