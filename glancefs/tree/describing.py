# SPDX-License-Identifier: Apache-2.0
"""Several attributes of one file changed together, in one step.

Answers for what a set of changes means as one change, and for telling beforehand which of them can't be. Makes no
change itself.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from glancefs.context import RequestContext
from glancefs.errors import AttributeNotFound, Forbidden, PathNotFound
from glancefs.model import Image, ImageChanges
from glancefs.rules import may_change
from glancefs.staging import Said
from glancefs.tree import attributes
from glancefs.tree.entries import Entry

Values = Mapping[str, str | None]
"""Attributes without their prefix and what they are to be; None: they are to be removed."""


def check(context: RequestContext, entry: Entry, field: str, text: str | None, *, public_url: str) -> None:
    """Raise what setting (None: removing) an attribute would: AttributesUnsupported, InvalidImage, Forbidden."""
    attributes.field_of(attributes.PREFIX + field)
    if entry.staged is not None:
        _said(entry.staged.said, {field: text})
        return
    image = entry.image
    if image is None:
        raise Forbidden(f"{entry.path!r} has no attributes.")
    if not may_change(context, image):
        raise Forbidden(f"Image {image.id!r} belongs to somebody else.")
    if text is None and (field in attributes.COMPUTED or field == "name"):
        raise Forbidden(f"{field} follows from other things and can't be removed.")
    if field == "name":
        ImageChanges(name=text or "")
    elif field in attributes.COMPUTED:
        if text != attributes.text_of(image, field, public_url=public_url):
            raise Forbidden(f"{field} follows from other things and can't be set.")
    else:
        changes_of(image, {field: text})


def changes_of(image: Image, values: Values) -> ImageChanges:
    """Give the one change of an image that these make; what is not there need not be removed."""
    said: dict[str, Any] = {}
    properties: dict[str, str] = {}
    removed: set[str] = set()
    for field, text in values.items():
        if field in attributes.COMPUTED or field == "name":
            continue
        if text is not None:
            change: ImageChanges | None = attributes.change_of(field, text)
        else:
            change = None
            with suppress(AttributeNotFound):
                change = attributes.removal_of(image, field)
        if change is not None:
            said |= change.said()
            properties |= change.properties
            removed |= change.removed_properties
    return ImageChanges(**said, properties=properties, removed_properties=frozenset(removed.difference(properties)))


def said_with(entry: Entry, values: Values) -> Said:
    """Give what is said of a staged file once these are. Raises PathNotFound for what is none."""
    if entry.staged is None:
        raise PathNotFound.at(entry.path)
    return _said(entry.staged.said, values)


def _said(said: Said, values: Values) -> Said:
    for field, text in values.items():
        said = attributes.unsaying(said, field) if text is None else attributes.saying(said, field, text)
    return said
