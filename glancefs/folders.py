# SPDX-License-Identifier: Apache-2.0
"""The use cases of the tree: what is in a folder, and what can be done with folders.

Answers for who may do what with folders, as `glancefs.images` does for images. Paths are those of `glancefs.paths`.

Threading: thread-safe, as the registry is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime

from glancefs.context import RequestContext
from glancefs.errors import InvalidRequest, NotAuthenticated, PathTaken
from glancefs.model import Image
from glancefs.registries.base import Changes, Registry
from glancefs.registries.folders import (
    Folder,
    FolderPage,
    Found,
    OutlinedRegistry,
    OutlinePage,
    outlines_of,
)
from glancefs.registries.locks import Presented
from glancefs.rules import view_of


class Folders:
    """The use cases over one registry."""

    def __init__(self, *, registry: Registry, clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._clock = clock

    # ---- looking

    def images_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> FolderPage:
        """Give one page of the images right in a folder, by name; nothing for a folder that is not there."""
        return self._registry.folders.images_in(path, view_of(context), after=after, limit=limit)

    def outlines_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> OutlinePage:
        """Give what a listing tells of the same page of images."""
        folders = self._registry.folders
        if isinstance(folders, OutlinedRegistry):
            return folders.outlines_in(path, view_of(context), after=after, limit=limit)
        return outlines_of(folders.images_in(path, view_of(context), after=after, limit=limit))

    def folders_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> Sequence[Folder]:
        """Give one page of the folders right in a folder, from behind the path ``after``."""
        return self._registry.folders.folders_in(path, view_of(context), after=after, limit=limit)

    def get(self, context: RequestContext, path: str) -> Folder:
        """Give a folder. Raises PathNotFound."""
        return self._registry.folders.folder(path, view_of(context))

    def first_named(self, context: RequestContext, name: str) -> Image | None:
        """Give the image that a name means: the caller's own before others', then the one that was there first."""
        return self._registry.folders.first_named(name, view_of(context))

    def at(self, context: RequestContext, name: str) -> Found:
        """Give the image that a name means, and the folder at the same path, whichever there are."""
        return self._registry.folders.at(name, view_of(context))

    def first_of_their_names(self, context: RequestContext, image_ids: Collection[str]) -> Collection[str]:
        """Tell which of these images are what their names mean."""
        return self._registry.folders.first_of_their_names(image_ids, view_of(context))

    # ---- changing

    def make(self, context: RequestContext, path: str) -> Folder:
        """Make a folder. Raises PathTaken if the caller made it before, NotAuthenticated, Locked."""
        folder = Folder(path=path, owner=_user(context), created_at=self._clock())
        return self._registry.folders.add_folder(folder, presented=self._presented(context))

    def keep(self, context: RequestContext, path: str) -> None:
        """Keep a folder that nobody made and whose last file has just gone; one that was made is fine.

        No lock hinders that: nothing changes. Raises NotAuthenticated.
        """
        folder = Folder(path=path, owner=_user(context), created_at=self._clock())
        with suppress(PathTaken):
            self._registry.folders.add_folder(folder)

    def remove(self, context: RequestContext, path: str) -> None:
        """Remove a hand-made folder that looks empty.

        Raises PathNotFound, FolderNotEmpty, NotAuthenticated, Locked.
        """
        _user(context)
        self._registry.folders.remove_folder(
            path, view_of(context), removed_at=self._clock(), presented=self._presented(context)
        )

    def move(self, context: RequestContext, old: str, new: str) -> int:
        """Rename a folder and everything in it that the caller may see, in one step; give the number of images.

        Raises PathNotFound, FolderNotEmpty (``new``), Forbidden when it holds visible images of others, PathTooLong,
        InvalidRequest for a folder that would move into itself, NotAuthenticated, Locked.
        """
        _user(context)
        if f"{new}/".startswith(f"{old}/"):
            raise InvalidRequest(f"The folder {old!r} can't move into itself.")
        return self._registry.folders.move_folder(
            old, new, view_of(context), moved_at=self._clock(), presented=self._presented(context)
        )

    def set_mtime(self, context: RequestContext, path: str, mtime_ns: int) -> Folder:
        """Set a folder's time of modification, which makes it hand-made. Raises PathNotFound, NotAuthenticated."""
        owner = _user(context)
        folder = self.get(context, path)
        owner = folder.owner or owner
        made = Folder(path=path, owner=owner, created_at=folder.created_at or self._clock(), mtime_ns=mtime_ns)
        return self._registry.folders.set_folder_mtime(made, presented=self._presented(context))

    def _presented(self, context: RequestContext) -> Presented:
        return Presented(user=context.user, tokens=context.lock_tokens, at=self._clock())

    # ---- others' changes

    @property
    def tells_of_changes(self) -> bool:
        """Whether `wait_for_change` comes back as soon as there is a change."""
        return self._registry.tells_of_changes

    def wait_for_change(self, seconds: float) -> None:
        """Wait until something may have changed, or so long."""
        self._registry.wait_for_change(timeout=seconds)

    def revision(self) -> int:
        """Give where the change feed ends."""
        return self._registry.revision()

    def changes(self, since: int, *, limit: int = 1000) -> Changes:
        """Give what changed after a revision, whoever may see it: callers must not show it to others."""
        return self._registry.changes(since=since, limit=limit)


def _user(context: RequestContext) -> str:
    if context.user is None:
        raise NotAuthenticated("Only a known user may change folders: log in.")
    return context.user
