# SPDX-License-Identifier: Apache-2.0
"""What every registry promises about the tree: which images a folder holds, and the folders made by hand.

Answers for the `FolderRegistry` protocol and the values it speaks in; `glancefs.registries.base` has the rest. Folders
are there because an image's path leads through them, or because somebody made them; the latter are kept, for each owner
on their own, and show only to them while nothing that others may see is in them.

Paths are those of `glancefs.paths`; the root is ``""``.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from glancefs.model import Image
from glancefs.registries.locks import Presented


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Who looks: public and available images are visible, those that ``viewer`` owns, and with ``sees_all`` all."""

    viewer: str | None = None
    sees_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder. Times are UTC."""

    path: str
    owner: str | None = None
    """Who made it by hand; None where nobody did, or nobody whose folder the looker may see."""
    created_at: datetime | None = None
    removed_at: datetime | None = None
    mtime_ns: int | None = None
    """The time of modification that somebody set, in nanoseconds since the epoch."""
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPage:
    """Some of the images of a folder, ordered by name, namesakes by who was there first."""

    images: tuple[Image, ...]
    marker: str | None
    """What gives the next page; None: there is none."""


class Outline(NamedTuple):
    """What a listing tells of an image: to make a whole one takes several times as long. Times are in whole seconds."""

    id: str
    name: str
    status: str
    size: int
    location: str | None
    """The text of its `Location`; None where it has no data."""
    owner: str | None
    is_public: bool
    created_at: int
    updated_at: int
    properties: str
    """As a JSON object."""
    checksum: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlinePage:
    """As `FolderPage`, with what a listing tells of each image."""

    images: Sequence[Outline]
    marker: str | None


def outline_of(image: Image) -> Outline:
    """Give what a listing tells of an image."""
    return Outline(
        id=image.id,
        name=image.name,
        status=str(image.status),
        size=image.size,
        location=None if image.location is None else str(image.location),
        owner=image.owner,
        is_public=image.is_public,
        created_at=int(image.created_at.timestamp()),
        updated_at=int(image.updated_at.timestamp()),
        properties=json.dumps(dict(image.properties)),
        checksum=image.checksum,
    )


def outlines_of(page: FolderPage) -> OutlinePage:
    """Give what a listing tells of the images of a page."""
    return OutlinePage(images=[outline_of(image) for image in page.images], marker=page.marker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is at a path: perhaps an image and a folder both."""

    image: Image | None
    folder: Folder | None


class FolderRegistry(Protocol):
    """Keeps the tree."""

    def images_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> FolderPage:
        """Give one page of the visible images right in a folder, whatever else the registry holds.

        A folder that is not there holds nothing. Raises InvalidQuery for a marker that is none.
        """
        ...

    def folders_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> Sequence[Folder]:
        """Give the visible folders right in a folder, from behind the one with the path ``after``, one step each."""
        ...

    def folder(self, path: str, view: View) -> Folder:
        """Give a folder. Raises PathNotFound where none is, or none to be seen by this looker."""
        ...

    def first_named(self, name: str, view: View) -> Image | None:
        """Give the image that a name means: of the visible ones the looker's own, then the one that was there first."""
        ...

    def at(self, name: str, view: View) -> Found:
        """Give what `first_named` gives, and the folder that has the path of this name, in one look."""
        ...

    def first_of_their_names(self, image_ids: Collection[str], view: View) -> Collection[str]:
        """Tell which of these visible images are what their names mean, as `first_named` would say."""
        ...

    def add_folder(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """Keep a folder made by hand; the owner must be said. Raises PathTaken if the owner made it before.

        This, and every other change of folders, raises Locked unless what is ``presented`` unlocks every path at which
        something would change (`glancefs.registries.locks`); None asks for no locks.
        """
        ...

    def set_folder_mtime(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """Keep a folder's time of modification, and with it the folder if the owner had not made it."""
        ...

    def remove_folder(self, path: str, view: View, *, removed_at: datetime, presented: Presented | None = None) -> None:
        """Remove a hand-made folder of the looker's (with ``sees_all``: everybody's) that looks empty.

        The locks on it and its dead properties go too.

        Raises PathNotFound, FolderNotEmpty.
        """
        ...

    def move_folder(
        self, old: str, new: str, view: View, *, moved_at: datetime, presented: Presented | None = None
    ) -> int:
        """Give all visible images and hand-made folders at and below a path their new paths, in one transaction.

        What the looker can't see stays where it is; dead properties of folders move, locks go. The transaction is as
        large as the folder: others who write wait for it, 30 to 50 microseconds for every image. Gives how many images
        were renamed. Raises PathNotFound, Forbidden when a visible image is not the looker's (and not ``sees_all``),
        FolderNotEmpty when something is in the folder ``new``, PathTooLong when a name would get too long; then nothing
        is moved.
        """
        ...


@runtime_checkable
class OutlinedRegistry(Protocol):
    """A `FolderRegistry` that knows shorter listings, which spare it half of the work."""

    def outlines_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> OutlinePage:
        """Give what `FolderRegistry.images_in` does, as much of it as a listing tells. The markers are the same."""
        ...
