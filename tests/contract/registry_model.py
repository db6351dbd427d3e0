# SPDX-License-Identifier: Apache-2.0
"""A registry that is nothing but its promises: the sentences of `glancefs.registries.base`, on a dictionary.

Answers for what a real registry's lists are held against, and for the images and queries to try. Does not care for
speed, threads or files.

Threading: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from glancefs.model import MAX_NUMBER, Image, ImageStatus, ImageType, Location
from glancefs.registries.base import ImageQuery, SortDirection, SortKey

NOON = datetime(2024, 5, 17, 12, 0, 0, tzinfo=UTC)
OWNERS = ("ann", "bob")


def an_image(**said: Any) -> Image:
    """Make an image, unlike all defaults only where said so."""
    fields: dict[str, Any] = {
        "id": "",
        "name": "debian",
        "type": ImageType.MACHINE,
        "status": ImageStatus.QUEUED,
        "size": 0,
        "store": "file",
        "owner": "ann",
        "is_public": False,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Image(**(fields | said))


def an_available_image(**said: Any) -> Image:
    """Make an image that has data."""
    data = {
        "status": ImageStatus.AVAILABLE,
        "size": 7,
        "checksum": "sha256:" + "0" * 64,
        "location": Location(store="file", key="k"),
    }
    return an_image(**(data | said))


class Model:
    """What a registry holds, and what it would answer."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        """In the order of addition."""

    def put(self, image: Image) -> None:
        """Take over what the registry made of an image."""
        self.images[image.id] = image

    def find(self, query: ImageQuery) -> Sequence[Image]:
        """Give what `Registry.find` promises."""
        places = {image_id: place for place, image_id in enumerate(self.images)}

        def order(image: Image) -> tuple[Any, int]:
            return _sort_value(image, query.sort_key), places[image.id]

        found = [image for image in self.images.values() if _is_listed(image, query)]
        descending = query.sort_direction is SortDirection.DESCENDING
        if query.marker is not None:
            marker = order(self.images[query.marker])
            found = [image for image in found if (order(image) < marker if descending else order(image) > marker)]
        return sorted(found, key=order, reverse=descending)[: query.limit]


def _sort_value(image: Image, key: SortKey) -> Any:
    value = getattr(image, key)
    return "" if value is None else value


def _is_listed(image: Image, query: ImageQuery) -> bool:
    return _is_visible(image, query) and _is_of_the_time(image, query) and _passes(image, query)


def _is_visible(image: Image, query: ImageQuery) -> bool:
    if query.is_public is not None and image.is_public is not query.is_public:
        return False
    if query.sees_all or (query.viewer is not None and image.owner == query.viewer):
        return True
    has_data = image.status is ImageStatus.AVAILABLE
    had_data = image.status is ImageStatus.DELETED and image.checksum is not None
    return image.is_public and (has_data or had_data)


def _is_of_the_time(image: Image, query: ImageQuery) -> bool:
    if query.changed_since is None:
        return image.status is not ImageStatus.DELETED
    return max(image.updated_at, image.deleted_at or image.updated_at) >= query.changed_since


def _passes(image: Image, query: ImageQuery) -> bool:
    equal = ("name", "type", "status", "disk_format", "container_format", "owner", "store")
    return (
        all(getattr(query, name) in {None, getattr(image, name)} for name in equal)
        and (query.size_min is None or image.size >= query.size_min)
        and (query.size_max is None or image.size <= query.size_max)
        and query.properties.items() <= image.properties.items()
    )


# ---- what to try

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=1024)
"""Any text there is: NUL, emoji, combining characters, separators."""

FEW_TEXTS = st.sampled_from(["", "a", "b", "B", "ä", "日本", "a/b", "\0", "\N{GRINNING FACE}"])
TIMES = st.integers(0, 3).map(lambda seconds: NOON + timedelta(seconds=seconds))
SIZES = st.sampled_from([0, 1, 2, 2**32, MAX_NUMBER])
PROPERTIES = st.dictionaries(st.sampled_from(["os", "arch"]), st.sampled_from(["", "x", "y"]))
LIVING = [status for status in ImageStatus if status is not ImageStatus.DELETED]


@st.composite
def images(draw: st.DrawFn, *, id: str = "") -> Image:
    """Draw an image of few possible values, so that many are alike."""
    return an_image(
        id=id,
        name=draw(FEW_TEXTS),
        type=draw(st.sampled_from(ImageType)),
        status=draw(st.sampled_from(LIVING)),
        size=draw(SIZES),
        owner=draw(st.sampled_from([*OWNERS, None])),
        is_public=draw(st.booleans()),
        store=draw(st.sampled_from(["file", "other"])),
        created_at=draw(TIMES),
        updated_at=draw(TIMES),
        checksum=draw(st.sampled_from([None, "sha256:" + "0" * 64])),
        disk_format=draw(st.sampled_from([None, "raw", "qcow2"])),
        container_format=draw(st.sampled_from([None, "bare"])),
        properties=draw(PROPERTIES),
    )


@st.composite
def queries(draw: st.DrawFn, *, ids: Sequence[str] = ()) -> ImageQuery:
    """Draw a query that uses some of the filters."""
    filters: Mapping[str, st.SearchStrategy[Any]] = {
        "name": FEW_TEXTS,
        "type": st.sampled_from(ImageType),
        "status": st.sampled_from(ImageStatus),
        "disk_format": st.sampled_from(["raw", "qcow2"]),
        "container_format": st.just("bare"),
        "owner": st.sampled_from(OWNERS),
        "store": st.sampled_from(["file", "other"]),
        "size_min": SIZES,
        "size_max": SIZES,
        "properties": PROPERTIES,
        "changed_since": TIMES,
    }
    used = draw(st.sets(st.sampled_from(sorted(filters)), max_size=3))
    return ImageQuery(
        viewer=draw(st.sampled_from([*OWNERS, None])),
        sees_all=draw(st.booleans()),
        is_public=draw(st.sampled_from([True, False, None])),
        sort_key=draw(st.sampled_from(SortKey)),
        sort_direction=draw(st.sampled_from(SortDirection)),
        marker=draw(st.sampled_from([None, *ids])),
        limit=draw(st.sampled_from([0, 1, 2, 5, 1000])),
        **{name: draw(filters[name]) for name in sorted(used)},
    )


def everything(query: ImageQuery) -> ImageQuery:
    """Widen a query to the whole list."""
    return replace(query, marker=None, limit=1000)
