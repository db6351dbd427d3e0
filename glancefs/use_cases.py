# SPDX-License-Identifier: Apache-2.0
"""The use cases that are the same for who has them at hand and for who asks a server for them.

Answers for their names, arguments and answers, from which the calls of `glancefs.remote.calls` are derived and on which
the tree's ports (`glancefs.tree.ports`) stand. What they do, and which errors they raise, `glancefs.images.Images` and
`glancefs.folders.Folders` say.

Threading: implementations are thread-safe.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from glancefs.context import RequestContext
from glancefs.model import Image, ImageChanges, NewImage
from glancefs.registries.folders import Folder, FolderPage, Found
from glancefs.stores.base import Space


class ImageUseCases(Protocol):
    """Those of `glancefs.images.Images` that bring no data."""

    def get(self, context: RequestContext, image_id: str) -> Image:
        """Give an image."""
        ...

    def create(self, context: RequestContext, new: NewImage, *, replacing: str | None = None) -> Image:
        """Add an image without data."""
        ...

    def copy(self, context: RequestContext, image_id: str, new: NewImage, *, replacing: str | None = None) -> Image:
        """Add an image with the data of another."""
        ...

    def declare_size(self, context: RequestContext, image_id: str, size: int) -> Image:
        """Say anew how large the data of a queued image will be."""
        ...

    def update(
        self,
        context: RequestContext,
        image_id: str,
        changes: ImageChanges,
        *,
        expected_revision: int | None = None,
        replacing: str | None = None,
    ) -> Image:
        """Change an image's metadata."""
        ...

    def delete(self, context: RequestContext, image_id: str, *, expected_revision: int | None = None) -> None:
        """Delete an image."""
        ...

    def space(self) -> Space | None:
        """Tell the room for new images."""
        ...


class FolderUseCases(Protocol):
    """Those of `glancefs.folders.Folders` that everybody has."""

    def images_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> FolderPage:
        """Give one page of the images right in a folder."""
        ...

    def folders_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> Sequence[Folder]:
        """Give one page of the folders right in a folder."""
        ...

    def get(self, context: RequestContext, path: str) -> Folder:
        """Give a folder."""
        ...

    def first_named(self, context: RequestContext, name: str) -> Image | None:
        """Give the image that a name means."""
        ...

    def at(self, context: RequestContext, name: str) -> Found:
        """Give the image that a name means, and the folder at the same path."""
        ...

    def first_of_their_names(self, context: RequestContext, image_ids: Collection[str]) -> Collection[str]:
        """Tell which of these images are what their names mean."""
        ...

    def make(self, context: RequestContext, path: str) -> Folder:
        """Make a folder."""
        ...

    def keep(self, context: RequestContext, path: str) -> None:
        """Keep a folder that nobody made and whose last file has just gone."""
        ...

    def remove(self, context: RequestContext, path: str) -> None:
        """Remove an empty folder."""
        ...

    def move(self, context: RequestContext, old: str, new: str) -> int:
        """Rename a folder and everything in it."""
        ...

    def set_mtime(self, context: RequestContext, path: str, mtime_ns: int) -> Folder:
        """Set a folder's time of modification."""
        ...

    def revision(self) -> int:
        """Give where the change feed ends."""
        ...
