# SPDX-License-Identifier: Apache-2.0
"""What every registry promises: the metadata of images, one row each, changed by compare-and-swap.

Answers for the `Registry` protocol and the values it speaks in. A registry keeps what it is given: which changes are
allowed, and who may see what, `glancefs.images` decides. `tests/contract` runs one suite over all of them.

Every change, in the transaction that makes it, raises one counter and stamps the image with the result, its *revision*.
Revisions become visible in their order: whoever has seen revision n finds every later change in ``changes(since=n)``.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from glancefs.model import Image, ImageStatus, ImageType, Location
from glancefs.registries.dead_properties import DeadPropertyRegistry
from glancefs.registries.folders import Folder, FolderRegistry, View
from glancefs.registries.locks import Lock, LockRegistry, Presented

POLLED: Final = 0.25
"""How often a database that tells nothing by itself is asked for changes, in seconds."""


class SortKey(StrEnum):
    """What a list may be sorted by; an unset value comes before every other.

    Equal values are in the order in which the images were added. A descending list is an ascending one backwards.
    """

    ID = "id"
    NAME = "name"
    TYPE = "type"
    STATUS = "status"
    SIZE = "size"
    DISK_FORMAT = "disk_format"
    CONTAINER_FORMAT = "container_format"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


class SortDirection(StrEnum):
    """Which end of a list comes first."""

    ASCENDING = "asc"
    DESCENDING = "desc"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuery:
    """Which images, in which order, from where on.

    Three fields say whose: an image is *visible* when it is public and available, or owned by ``viewer``, or
    ``sees_all`` is set; of the visible ones, ``is_public`` picks public, private or (None) both. A deleted image is
    visible like an available one if it had data (a checksum): who saw it may learn that it is gone.
    """

    viewer: str | None = None
    sees_all: bool = False
    is_public: bool | None = True

    name: str | None = None
    type: ImageType | None = None
    status: ImageStatus | None = None
    disk_format: str | None = None
    container_format: str | None = None
    owner: str | None = None
    store: str | None = None
    size_min: int | None = None
    """In bytes, inclusive."""
    size_max: int | None = None
    """In bytes, inclusive."""
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """All of these must be there with these very values."""
    changed_since: datetime | None = None
    """Updated or deleted at this time (whole seconds) or later; with it, deleted images are listed too, else never."""

    sort_key: SortKey = SortKey.CREATED_AT
    sort_direction: SortDirection = SortDirection.DESCENDING
    marker: str | None = None
    """The identifier of an image (a deleted one may serve); the list begins right behind it."""
    limit: int = 1000
    """How many at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """A piece of the change feed."""

    images: tuple[Image, ...]
    """Each changed image once, as it is, deleted ones too, in the order of their revisions."""
    folders: tuple[Folder, ...] = ()
    """Each changed hand-made folder once, removed ones too."""
    revision: int
    """Up to where this piece tells everything: the ``since`` of the next call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """An image that another one takes the place of: it is deleted in the same transaction."""

    image_id: str
    expected_revision: int
    deleted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """How much of what there is."""

    status: ImageStatus
    store: str
    images: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a change gave that was made under a key; all is None where it gave nothing."""

    image: Image | None = None
    folder: Folder | None = None
    lock: Lock | None = None
    number: int | None = None


class Registry(Protocol):
    """Keeps the metadata of images."""

    @property
    def folders(self) -> FolderRegistry:
        """The tree that the images' names make, on the same database."""
        ...

    @property
    def locks(self) -> LockRegistry:
        """The write locks on paths of the tree, on the same database."""
        ...

    @property
    def dead_properties(self) -> DeadPropertyRegistry:
        """What WebDAV clients keep beside images and folders, on the same database."""
        ...

    def add(
        self,
        image: Image,
        *,
        superseding: Superseded | None = None,
        copied_from: str | None = None,
        presented: Presented | None = None,
        vacant_for: View | None = None,
    ) -> Image:
        """Add an image; an empty ``id`` asks for a generated one. Gives it back with its ``id`` and ``revision``.

        With ``superseding`` another one is deleted in the same transaction, and this one takes its place among its
        namesakes, and its dead properties; with ``copied_from`` it gets copies of those of that image instead. With
        ``vacant_for`` it is only added where who looks so sees no image of this name, else raises PathTaken. Raises
        Duplicate when the identifier is taken, by a deleted image too; of many callers at once exactly one wins. Raises
        StaleImage, ImageNotFound about the superseded image, and Locked; then nothing is added.

        `add`, `replace` and `delete` raise Locked unless what is ``presented`` unlocks every path at which something
        would change; None asks for no locks.
        """
        ...

    def get(self, image_id: str) -> Image:
        """Give the image, a deleted one too (its status says so). Raises ImageNotFound."""
        ...

    def find(self, query: ImageQuery) -> Sequence[Image]:
        """Give one page, at a cost that depends on the page and not on how many images there are.

        Raises InvalidQuery for a marker that names no image, and for a negative limit.
        """
        ...

    def replace(
        self,
        image: Image,
        *,
        expected_revision: int,
        superseding: Superseded | None = None,
        presented: Presented | None = None,
    ) -> Image:
        """Put this in place of the image with the same ``id``, if that is still at the expected revision.

        With ``superseding`` another one is deleted in the same transaction, as `add` does, but this one keeps its own
        dead properties. Gives it back with its new revision. Raises StaleImage when it is not, ImageNotFound when there
        is none or it is deleted, and Locked as `add` does.
        """
        ...

    def delete(
        self, image_id: str, *, expected_revision: int, deleted_at: datetime, presented: Presented | None = None
    ) -> Image:
        """Leave only the tombstone: status ``deleted``, the time of it, and no location. Gives the tombstone.

        Raises StaleImage, ImageNotFound, Locked as `replace` does.
        """
        ...

    def changes(self, *, since: int, limit: int = 1000) -> Changes:
        """Give what changed after revision ``since`` (0: ever)."""
        ...

    @property
    def tells_of_changes(self) -> bool:
        """Whether `wait_for_change` comes back as soon as there is a change; else asking now and then is as good."""
        ...

    def wait_for_change(self, *, timeout: float) -> None:
        """Wait until something may have changed, or so many seconds; may come back early.

        Where the database tells of changes itself, it comes back as soon as there is one; elsewhere four times
        a second.
        """
        ...

    def revision(self) -> int:
        """Give the revision of the latest change; 0 before the first."""
        ...

    def identity(self) -> str:
        """Give what no other registry has, made with its database and never changed: letters and digits."""
        ...

    def answered(self, key: str) -> Answered | None:
        """Give what the change under this key gave, if it was made within the last minutes (`ServedRegistry.once`)."""
        ...

    def named_locations(self, locations: Collection[Location]) -> Collection[Location]:
        """Tell which of these are named by an image that is not deleted."""
        ...

    def holdings(self) -> Sequence[Holdings]:
        """Count images and bytes by status and store, deleted ones left out."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; may be called twice."""
        ...


class ServedRegistry(Registry, Protocol):
    """A registry that makes changes for others, who may have to ask again because an answer was lost."""

    def once(self, key: str, *, until: float | None = None) -> ServedRegistry:
        """Give this registry for one change, which is made once however often it is asked for under this key.

        Who asks again within five minutes gets the answer of the first time. A change that is refused leaves nothing.
        After ``until``, in seconds since the epoch, it is not made any more but refused with RegistryUnavailable.
        """
        ...


def every_image(registry: Registry, query: ImageQuery, *, page_size: int = 500) -> Iterator[Image]:
    """Give all images that match, whatever the query's limit, page by page: nothing is held open in between."""
    while True:
        page = registry.find(replace(query, limit=page_size))
        yield from page
        if len(page) < page_size:
            return
        query = replace(query, marker=page[-1].id)
