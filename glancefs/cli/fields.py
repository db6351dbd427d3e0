# SPDX-License-Identifier: Apache-2.0
"""What the command line can say of an image: the options that `add`, `set` and `list` share.

Answers for the forms of single values. What they may be, `glancefs.model` decides.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from glancefs.errors import InvalidImage
from glancefs.model import CONTAINER_FORMATS, DISK_FORMATS, ImageType

_Function = TypeVar("_Function", bound=Callable[..., Any])

TYPES: Final = click.Choice([type_.value for type_ in ImageType])

_OPTIONS: Final = (
    click.option("--type", type=TYPES, help="What the image is for."),
    click.option("--public/--private", "is_public", default=None, help="Who may see it: anybody, or its owner."),
    click.option("--protected/--unprotected", default=None, help="Whether it refuses to be removed."),
    click.option(
        "--property", "properties", multiple=True, metavar="KEY=VALUE", help="A property; may be said several times."
    ),
    click.option("--disk-format", type=click.Choice(DISK_FORMATS), help="How a disk is stored."),
    click.option("--container-format", type=click.Choice(CONTAINER_FORMATS), help="What is around a disk."),
    click.option("--min-disk", type=click.IntRange(min=0), metavar="GIB", help="The disk that a machine needs for it."),
    click.option(
        "--min-ram", type=click.IntRange(min=0), metavar="MIB", help="The memory that a machine needs for it."
    ),
    click.option("--owner", help="To whom it belongs; for admins."),
)


def field_options(function: _Function) -> _Function:
    """Give a command the options for the fields of an image."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def said_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Give the fields that were said, as `NewImage` and `ImageChanges` take them."""
    fields = {name: value for name, value in given.items() if value is not None and name != "properties"}
    if fields.get("name") == "":
        raise InvalidImage("An empty name is none.", field="name")
    if "type" in fields:
        fields["type"] = ImageType(fields["type"])
    return fields | {"properties": key_values(given.get("properties", ()))}


def key_values(texts: Iterable[str]) -> dict[str, str]:
    """Read ``KEY=VALUE``, each key once. Raises InvalidImage."""
    said: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            message = f"{text[:80]!r} is no property: KEY=VALUE."
            raise InvalidImage(message, field="properties")
        if key in said:
            message = f"The property {key!r} is said twice."
            raise InvalidImage(message, field="properties")
        said[key] = value
    return said
