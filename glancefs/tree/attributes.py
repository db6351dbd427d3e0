# SPDX-License-Identifier: Apache-2.0
"""Metadata of images as named attributes: the extended attributes of files, and the properties of WebDAV.

Answers for which attributes there are, for their texts, and for what setting one means. Makes no change itself.

``user.glance.FIELD`` are the image's fields, ``user.glance.property.KEY`` its properties. The time of modification is
not named among the properties, since files have one: a tool that mirrors attributes would take it away.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from glancefs.errors import AttributeNotFound, AttributesUnsupported, Forbidden, InvalidImage
from glancefs.headers import BOOLEANS, NUMBERS, header_text, read_boolean
from glancefs.model import Image, ImageChanges, ImageType, NewImage, image_type, property_key
from glancefs.staging import Said, StagedUpload
from glancefs.tree.entries import MTIME

PREFIX: Final = "user.glance."
PROPERTY: Final = "property."

COMPUTED: Final = ("id", "status", "size", "checksum", "store", "owner", "created_at", "updated_at", "uri")
"""What follows from other things; on a file that is not yet an image, ``id`` and ``store`` can be said."""
OPTIONAL: Final = ("disk_format", "container_format", "virtual_size", "min_disk", "min_ram")
"""What can be unset."""
SETTABLE: Final = ("type", "is_public", *OPTIONAL, "protected")
"""What changes by being set; ``name`` changes by renaming."""
_FIELDS: Final = frozenset({*COMPUTED, *SETTABLE, "name"})


def field_of(name: str) -> str:
    """Give the attribute's name without its prefix. Raises AttributesUnsupported for what is not kept."""
    field = name.removeprefix(PREFIX)
    if field == name or not (field in _FIELDS or (field.startswith(PROPERTY) and field != PROPERTY)):
        raise AttributesUnsupported(f"There is no attribute {name[:80]!r}.")
    return field


def read_text(value: bytes, field: str) -> str:
    """Read an attribute's value. Raises InvalidImage for what is no text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidImage(f"The value of {field} is no UTF-8.", field=field) from None


def text_of(image: Image, field: str, *, public_url: str) -> str | None:
    """Give the text of an image's attribute; None where it has none."""
    if field == "uri":
        return f"{public_url.rstrip('/')}/images/{image.id}"
    if field.startswith(PROPERTY):
        return image.properties.get(property_key(field.removeprefix(PROPERTY)))
    value = getattr(image, field)
    return None if value is None else header_text(value)


def names_of(image: Image) -> Iterator[str]:
    """Name the attributes that an image has."""
    for field in ("name", *COMPUTED, *SETTABLE):
        if field == "uri" or getattr(image, field) is not None:
            yield PREFIX + field
    for key in image.properties:
        if key != MTIME:
            yield f"{PREFIX}{PROPERTY}{key}"


def change_of(field: str, text: str) -> ImageChanges:
    """Give the change that setting an image's attribute means. Raises InvalidImage; Forbidden unless it is settable."""
    if field.startswith(PROPERTY):
        return ImageChanges(properties={field.removeprefix(PROPERTY): text})
    if field not in SETTABLE:
        raise Forbidden(f"{field} follows from other things and can't be set.")
    return ImageChanges(**{field: _value(field, text)})


def removal_of(image: Image, field: str) -> ImageChanges | None:
    """Give the change that removing an attribute means; None for what can't be absent, where it means nothing.

    Mirroring tools remove what their source does not have, so a removal without effect is no error. Raises
    AttributeNotFound for an attribute that the image does not have.
    """
    if field.startswith(PROPERTY):
        key = property_key(field.removeprefix(PROPERTY))
        if key not in image.properties:
            raise AttributeNotFound(f"The image has no property {key!r}.")
        return ImageChanges(removed_properties=frozenset({key}))
    if field not in OPTIONAL:
        return None
    if getattr(image, field) is None:
        raise AttributeNotFound(f"The image has no {field}.")
    unset: dict[str, Any] = {field: None}
    return ImageChanges(**unset)


# Files that are not yet images


def said_text(staged: StagedUpload, field: str) -> str | None:
    """Give the text of an attribute of a staged file; None where nothing was said."""
    if field in {"status", "size"}:
        return str(staged.size if field == "size" else staged.state)
    if field.startswith(PROPERTY):
        return staged.said.properties.get(property_key(field.removeprefix(PROPERTY)))
    value = getattr(staged.said, field, None)
    return None if value is None else header_text(value)


def said_names(staged: StagedUpload) -> Iterator[str]:
    """Name the attributes that a staged file has."""
    for field in ("id", "status", "size", "store", *SETTABLE):
        if said_text(staged, field) is not None:
            yield PREFIX + field
    for key in staged.said.properties:
        if key != MTIME:
            yield f"{PREFIX}{PROPERTY}{key}"


def saying(said: Said, field: str, text: str) -> Said:
    """Give what is said once an attribute is set; what can't be said of an image to be is dropped.

    Raises InvalidImage for a value that a settable attribute can't have.
    """
    if field.startswith(PROPERTY):
        checked = ImageChanges(properties={field.removeprefix(PROPERTY): text}).properties
        kept = said.removed_properties.difference(checked)
        return replace(said, properties={**said.properties, **checked}, removed_properties=kept)
    if field == "id":
        return replace(said, id=text) if _can_be_id(text) else said
    if field == "store":
        return replace(said, store=text)
    if field in SETTABLE:
        change_of(field, text)
        return replace(said, **{field: _value(field, text)})
    return said


def unsaying(said: Said, field: str) -> Said:
    """Give what is said once an attribute is removed; a property of the replaced image is then not carried over."""
    if field.startswith(PROPERTY):
        key = property_key(field.removeprefix(PROPERTY))
        rest = {other: value for other, value in said.properties.items() if other != key}
        return replace(said, properties=rest, removed_properties=said.removed_properties | {key})
    if field in SETTABLE or field in {"id", "store"}:
        unset: dict[str, Any] = {field: None}
        return replace(said, **unset)
    return said


def _value(field: str, text: str) -> Any:  # noqa: ANN401 - the type is the field's
    if field == "type":
        return image_type(text)
    if field in BOOLEANS:
        return read_boolean(text, field=field)
    if field in NUMBERS:
        if not text.isascii() or not text.isdigit():
            raise InvalidImage(f"{text[:80]!r} can't be the {field}: a whole number.", field=field)
        return int(text)
    return text


def _can_be_id(text: str) -> bool:
    try:
        NewImage(name="", type=ImageType.RAW, id=text)
    except InvalidImage:
        return False
    return True
