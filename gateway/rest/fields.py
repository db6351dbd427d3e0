# SPDX-License-Identifier: Apache-2.0
"""What a request's headers say of an image, read into `NewImage` and `ImageChanges`.

Answers for which ``x-image-meta-`` headers there are, for the forms of their values and for what may not be changed
(seed checklist, statements 14 to 20 and 24). What a field may hold, `glancefs.model` decides.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from gateway.rest.dialect import Dialect
from gateway.rest.queries import read_time
from gateway.wsgi import Request
from glancefs.errors import InvalidImage, InvalidQuery
from glancefs.headers import PREFIX, decode_header_value, read_boolean
from glancefs.model import Image, ImageChanges, ImageType, NewImage, image_type, normal_properties

_PROPERTY: Final = "property-"
_PURGE: Final = ("purge_properties", "x-glance-registry-purge-props")
_LONGEST_NUMBER: Final = 19
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")

_TYPES_OF_CONTAINERS: Final = {"aki": ImageType.KERNEL, "ari": ImageType.RAMDISK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the headers of a request say: texts, decoded but not yet understood."""

    fields: Mapping[str, str]
    properties: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Whether a field is there, and not empty."""
        return bool(self.fields.get(name))

    def number(self, name: str) -> int | None:
        """Read a whole number; None where the field is absent or empty. Raises InvalidImage for anything else."""
        text = self.fields.get(name)
        return read_number(name, text) if text else None

    def boolean(self, name: str) -> bool | None:
        """Read a boolean word; None where the field is absent. Raises InvalidImage for any other word."""
        text = self.fields.get(name)
        return None if text is None else read_boolean(text, field=name)

    def text(self, name: str) -> str | None:
        """Give a text; None where the field is absent or empty."""
        return self.fields.get(name) or None


def said_in(request: Request, dialect: Dialect) -> Said:
    """Collect the metadata in a request's headers. Raises InvalidImage where two headers say the same thing."""
    fields: dict[str, str] = {}
    properties: dict[str, str] = {}
    for name, value in request.sent_headers():
        if not name.startswith(PREFIX):
            continue
        rest = name.removeprefix(PREFIX)
        if rest.startswith(_PROPERTY):
            _put(properties, _property_name(rest, dialect), value)
        else:
            _put(fields, rest.replace("-", "_"), value)
    purge = request.header(_PURGE[1])
    if purge is not None:
        fields.setdefault(_PURGE[0], purge)
    return Said(fields=fields, properties=normal_properties(properties))


def new_image(said: Said, dialect: Dialect) -> NewImage:
    """Read an image to be. Raises InvalidImage that names the field and what it may be."""
    if not said.has("name"):
        message = "An image needs a name: the header x-image-meta-name."
        raise InvalidImage(message, field="name")
    return NewImage(
        name=said.fields["name"],
        type=_type(said, dialect),
        id=said.fields.get("id"),
        store=said.text("store"),
        size=declared_size(said),
        checksum=said.text("checksum"),
        is_public=said.boolean("is_public"),
        properties=said.properties,
        disk_format=said.text("disk_format"),
        container_format=said.text("container_format"),
        virtual_size=said.number("virtual_size"),
        min_disk=said.number("min_disk"),
        min_ram=said.number("min_ram"),
        protected=bool(said.boolean("protected")),
        owner=said.text("owner"),
    )


def image_changes(said: Said, image: Image) -> ImageChanges:
    """Read the changes to an image. Raises InvalidImage that names the field and what it may be."""
    changes: dict[str, Any] = {
        name: read(said, name) for name, read in _CHANGEABLE.items() if said.fields.get(name) is not None
    }
    # Naming the present owner changes nothing, and everybody may say it.
    if changes.get("owner", image.owner) == image.owner:
        changes.pop("owner", None)
    return ImageChanges(
        **changes,
        properties=said.properties,
        purge_properties=bool(said.boolean(_PURGE[0])),
    )


def declared_size(said: Said) -> int | None:
    """Give the size that the data are declared to have. Raises InvalidImage unless it is a whole number."""
    text = said.fields.get("size")
    return None if text is None else read_number("size", text)


def declared_checksum(said: Said) -> str | None:
    """Give the checksum that the data are declared to have. Raises InvalidImage for what none of ours looks like."""
    text = said.text("checksum")
    if text is not None and not _CHECKSUM.fullmatch(text):
        message = f"{text[:80]!r} is not a checksum: 'sha256:' and 64 lower-case hex digits."
        raise InvalidImage(message, field="checksum")
    return text


def check_computed(said: Said, image: Image, dialect: Dialect, *, takes_data: bool) -> None:
    """Raise InvalidImage for another value of a field that nobody sets; its own value is fine.

    An image that takes its data with this request may be told their size and checksum.
    """
    for name, text in said.fields.items():
        is_same = _COMPUTED.get(name)
        if is_same is None or (takes_data and name in {"size", "checksum"}):
            continue
        if not is_same(image, text, dialect):
            message = f"The {name} of an image can't be set."
            raise InvalidImage(message, field=name)


def read_number(name: str, text: str) -> int:
    """Read a whole number of at most 19 digits. Raises InvalidImage for anything else."""
    if not (text.isascii() and text.isdigit()) or len(text) > _LONGEST_NUMBER:
        message = f"{text[:80]!r} can't be the {name}: a whole number, 0 or more."
        raise InvalidImage(message, field=name)
    return int(text)


def _property_name(rest: str, dialect: Dialect) -> str:
    name = rest.removeprefix(_PROPERTY)
    return unquote(name) if dialect.encodes_keys else name


def _put(into: dict[str, str], name: str, value: str) -> None:
    if name in into:
        message = f"The header for {name[:80]!r} is there twice."
        raise InvalidImage(message, field=name)
    into[name] = decode_header_value(value)


def _name(said: Said, name: str) -> str:
    text = said.text(name)
    if text is None:
        message = "An image can't lose its name."
        raise InvalidImage(message, field=name)
    return text


def _type(said: Said, dialect: Dialect) -> ImageType:
    text = said.text("type")
    if text is not None:
        return image_type(text)
    if not dialect.infers_type:
        message = f"An image needs a type: the header x-image-meta-type, one of {', '.join(ImageType)}."
        raise InvalidImage(message, field="type")
    inferred = _TYPES_OF_CONTAINERS.get(said.fields.get("container_format", ""))
    return inferred or (ImageType.MACHINE if said.has("disk_format") else ImageType.RAW)


_CHANGEABLE: Final[Mapping[str, Callable[[Said, str], object]]] = {
    "name": _name,
    "type": lambda said, name: image_type(said.fields[name]),
    "is_public": Said.boolean,
    "disk_format": Said.text,
    "container_format": Said.text,
    "virtual_size": Said.number,
    "min_disk": Said.number,
    "min_ram": Said.number,
    "protected": Said.boolean,
    "owner": Said.text,
}


def _is_time(text: str, time: datetime | None) -> bool:
    if time is None or not text:
        return not text and time is None
    try:
        return read_time(text) == time
    except InvalidQuery:
        return False


_COMPUTED: Final[Mapping[str, Callable[[Image, str, Dialect], bool]]] = {
    "id": lambda image, text, _: text == image.id,
    # The same image has a URI for each name of its server.
    "uri": lambda image, text, _: text.endswith(f"/images/{image.id}"),
    "size": lambda image, text, _: read_number("size", text) == image.size,
    "checksum": lambda image, text, _: text == (image.checksum or ""),
    "store": lambda image, text, _: text == image.store,
    "status": lambda image, text, dialect: text in {image.status.value, dialect.status_word(image.status)},
    "created_at": lambda image, text, _: _is_time(text, image.created_at),
    "updated_at": lambda image, text, _: _is_time(text, image.updated_at),
    "deleted_at": lambda image, text, _: _is_time(text, image.deleted_at),
}
