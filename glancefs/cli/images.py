# SPDX-License-Identifier: Apache-2.0
"""Commands on images that move no data: ``list``, ``show``, ``set`` and ``rm``.

Answers for reading their options. What they do, the backend does.

Threading: used by the main thread.
"""

from __future__ import annotations

from typing import Any

import click

from glancefs.cli.backend import image_meant
from glancefs.cli.fields import TYPES, field_options, key_values, said_fields
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.model import Image, ImageChanges, ImageStatus, ImageType, property_key
from glancefs.registries.base import ImageQuery, SortDirection, SortKey

_STATUSES = [status.value for status in ImageStatus if status is not ImageStatus.DELETED]


@click.command("list")
@shared_options("config", "data", "url", "json", "debug")
@click.option("--name", help="Only images of this name.")
@click.option("--type", type=TYPES, help="Only images of this type.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only images of this status.")
@click.option("--public/--private", "is_public", default=None, help="Only images that anybody, or not everybody, sees.")
@click.option("--owner", help="Only images of this owner.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Only images with this property.")
@click.option("--sort", type=click.Choice([key.value for key in SortKey]), help="By what to sort; else by age.")
@click.option("--reverse", is_flag=True, help="Sort the other way round.")
@click.option("--limit", type=click.IntRange(min=1), help="How many at the most.")
@pass_said
def list_images(said: Said, /, *, sort: str | None, reverse: bool, limit: int | None, **filters: Any) -> None:  # noqa: ANN401 - whatever click gives
    """List images, the newest first."""
    wanted = {name: value for name, value in filters.items() if value is not None and name != "properties"}
    if "type" in wanted:
        wanted["type"] = ImageType(wanted["type"])
    if "status" in wanted:
        wanted["status"] = ImageStatus(wanted["status"])
    # Ages run backwards, everything else forwards.
    is_ascending = (sort is not None) != reverse
    query = ImageQuery(
        **{"is_public": None} | wanted,
        properties={property_key(key): value for key, value in key_values(filters["properties"]).items()},
        sort_key=SortKey(sort) if sort else SortKey.CREATED_AT,
        sort_direction=SortDirection.ASCENDING if is_ascending else SortDirection.DESCENDING,
    )
    with said.backend() as backend:
        said.output().images(backend.find_all(query, limit=limit))


@click.command()
@shared_options("config", "data", "url", "json", "debug")
@click.argument("image", metavar="ID|NAME")
@pass_said
def show(said: Said, /, *, image: str) -> None:
    """Show everything about an image."""
    with said.backend() as backend:
        said.output().image(image_meant(backend, image))


@click.command("set")
@shared_options("config", "data", "url", "json", "debug")
@click.argument("image", metavar="ID|NAME")
@click.option("--name", help="Its new name.")
@field_options
@click.option("--remove-property", "removed", multiple=True, metavar="KEY", help="Drop a property.")
@click.option("--purge-properties", is_flag=True, help="Drop all properties that aren't said here.")
@pass_said
def set_image(said: Said, /, *, image: str, removed: tuple[str, ...], purge_properties: bool, **given: Any) -> None:  # noqa: ANN401 - whatever click gives
    """Change what is said of an image; its data never change."""
    changes = ImageChanges(
        **said_fields(given),
        removed_properties=frozenset(map(property_key, removed)),
        purge_properties=purge_properties,
    )
    with said.backend() as backend:
        said.output().image(backend.update(image_meant(backend, image), changes))


@click.command("rm")
@shared_options("config", "data", "url", "json", "debug")
@click.argument("images", metavar="ID|NAME...", nargs=-1, required=True)
@pass_said
def remove(said: Said, /, *, images: tuple[str, ...]) -> None:
    """Remove images and their data."""
    removed: list[Image] = []
    with said.backend() as backend:
        # All of them are found before the first is gone, so that a mistyped name removes nothing.
        found = {image.id: image for image in (image_meant(backend, text) for text in images)}
        try:
            for image in found.values():
                backend.delete(image)
                removed.append(image)
        finally:
            if said.json:
                said.output().json_list(image.id for image in removed)
