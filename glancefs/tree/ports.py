# SPDX-License-Identifier: Apache-2.0
"""What the tree needs of the use cases, so that it works the same over local ones and over remote ones.

Answers for nothing: `glancefs.images.Images`, `glancefs.folders.Folders`, `glancefs.locks.Locks` and
`glancefs.dead_properties.DeadProperties` satisfy these protocols as they are, and so do a mount's own staging and that
of processes which share one.

Threading: implementations are thread-safe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from glancefs.context import RequestContext
from glancefs.model import Image, ImageChanges, NewImage
from glancefs.reader import DataReader
from glancefs.registries.base import Changes, ImageQuery
from glancefs.registries.dead_properties import OfFolder, Subject
from glancefs.registries.folders import OutlinePage
from glancefs.registries.locks import Lock, Touched
from glancefs.staging import StagedUpload
from glancefs.stores.base import Source
from glancefs.use_cases import FolderUseCases, ImageUseCases


class TreeImages(ImageUseCases, Protocol):
    """The use cases of `glancefs.images.Images` that the tree needs; errors are described there."""

    def find_all(self, context: RequestContext, query: ImageQuery, *, page_size: int = 500) -> Iterator[Image]:
        """Give everything that a query matches."""
        ...

    def open_image(self, image: Image) -> DataReader:
        """Open the data of an image."""
        ...

    def allocated(self, image: Image) -> int:
        """Give the bytes that an image's data take on a local disk."""
        ...

    def add(
        self,
        context: RequestContext,
        new: NewImage,
        source: Source,
        *,
        size: int | None = None,
        replacing: str | None = None,
        only_new: bool = False,
    ) -> Image:
        """Add an image with its data."""
        ...

    def upload(
        self,
        context: RequestContext,
        image_id: str,
        source: Source,
        *,
        size: int | None = None,
        checksum: str | None = None,
        changes: ImageChanges | None = None,
    ) -> Image:
        """Bring the data of a queued image."""
        ...


@runtime_checkable
class ImagesOnDisk(Protocol):
    """Images whose data may lie on local disks. Those of `TreeImages` need not be; then their sizes are shown."""

    def allocated_at(self, locations: Sequence[str]) -> Sequence[int | None]:
        """Give the bytes that data take on local disks."""
        ...


@runtime_checkable
class OutlinedFolders(Protocol):
    """Folders that know shorter listings. Those of `TreeFolders` need not; then they are made of whole images."""

    def outlines_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> OutlinePage:
        """Give what a listing tells of one page of the images right in a folder."""
        ...


class TreeFolders(FolderUseCases, Protocol):
    """The use cases of `glancefs.folders.Folders`; errors are described there."""

    @property
    def tells_of_changes(self) -> bool:
        """Whether `wait_for_change` comes back as soon as there is a change."""
        ...

    def wait_for_change(self, seconds: float) -> None:
        """Wait until something may have changed, or so long."""
        ...

    def changes(self, since: int, *, limit: int = 1000) -> Changes:
        """Give what changed after a revision."""
        ...


class StagingArea(Protocol):
    """Where files are staged: `glancefs.staging.Staging` of a mount, `SharedFiles` of a request."""

    def create(self, path: str, *, replaces: str | None = None, queued: str | None = None) -> StagedUpload:
        """Begin an empty file that is to be seen at a path."""
        ...

    def recover(self) -> Sequence[StagedUpload]:
        """Take over what dead mounts of the same user left."""
        ...

    def forget(self, upload: StagedUpload) -> None:
        """Close a file that is published or discarded."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class TreeLocks(Protocol):
    """The use cases of `glancefs.locks.Locks`; errors are described there."""

    def acquire(
        self,
        context: RequestContext,
        path: str,
        *,
        guards: str | None,
        is_shared: bool = False,
        is_deep: bool = False,
        owner_xml: str = "",
        seconds: int | None = None,
    ) -> Lock:
        """Take a lock."""
        ...

    def refresh(self, context: RequestContext, token: str, *, seconds: int | None = None) -> Lock:
        """Let a lock last longer."""
        ...

    def release(self, context: RequestContext, token: str) -> Lock:
        """Give a lock back."""
        ...

    def covering(self, path: str, *, guarding: str | None) -> Sequence[Lock]:
        """Give the locks that hold for a path."""
        ...

    def below(self, path: str, *, guarding: str | None) -> Sequence[Lock]:
        """Give the locks on paths below a folder."""
        ...

    def check(self, context: RequestContext, touched: Collection[Touched]) -> bool:
        """Raise Locked if a change would meet a lock; give whether there are any locks."""
        ...

    def forget(self, context: RequestContext, path: str, *, guarding: str | None) -> None:
        """Remove the locks of what is removed from a path."""
        ...


class TreeDeadProperties(Protocol):
    """The use cases of `glancefs.dead_properties.DeadProperties`; errors are described there."""

    def get_many(self, subjects: Collection[Subject]) -> Mapping[Subject, Mapping[str, str]]:
        """Give the dead properties of many."""
        ...

    def change(
        self,
        context: RequestContext,
        subject: Subject,
        *,
        values: Mapping[str, str],
        removed: Collection[str] = (),
    ) -> None:
        """Set some and remove others."""
        ...

    def copy(self, context: RequestContext, source: OfFolder, target: OfFolder) -> None:
        """Give a folder the same ones as another."""
        ...
