# SPDX-License-Identifier: Apache-2.0
"""Removing a folder with everything in it, as far as that may be removed.

Answers for going on past what has to stay, and for telling what that is. Each image goes in a step of its own: others
see the folder shrink, and what is gone when something fails stays gone.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import GlancefsError, ImageNotFound, PathNotFound
from glancefs.tree.entries import Entry, EntryKind
from glancefs.tree.looking import Looking
from glancefs.tree.moving import Moving
from glancefs.tree.ports import TreeImages

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stayed:
    """Something that could not be removed, and why."""

    path: str
    error: GlancefsError


class Clearing:
    """What empties folders of the tree of one caller."""

    def __init__(self, *, images: TreeImages, looking: Looking, moving: Moving, context: RequestContext) -> None:
        self._images: Final = images
        self._looking: Final = looking
        self._moving: Final = moving
        self._context: Final = context

    def clear(self, path: str) -> Sequence[Stayed]:
        """Remove a folder and everything below; see `ImageTree.clear`."""
        stayed: list[Stayed] = []
        folders = [path]
        for folder in folders:
            for page in self._looking.list(folder, page_size=_PAGE):
                folders += [entry.path for entry in page if entry.kind is EntryKind.FOLDER]
                stayed += [left for entry in page if (left := self._remove(entry)) is not None]
        kept = {left.path for left in stayed}
        # From the deepest up: a folder stays with what stays in it, which is told of already.
        for folder in reversed(folders):
            if any(other.startswith(f"{folder}/") for other in kept):
                continue
            try:
                self._remove_folder(folder)
            except GlancefsError as error:
                kept.add(folder)
                stayed.append(Stayed(path=folder, error=error))
        return stayed

    def _remove(self, entry: Entry) -> Stayed | None:
        if entry.kind is EntryKind.FOLDER:
            return None
        try:
            with suppress(ImageNotFound, PathNotFound):
                if entry.image is not None:
                    # By its id: the path of a namesake changes when the one before it goes.
                    self._images.delete(self._context, entry.image.id)
                else:
                    self._moving.remove(entry.path)
        except GlancefsError as error:
            return Stayed(path=entry.path, error=error)
        return None

    def _remove_folder(self, folder: str) -> None:
        # One that nobody made is gone with the last image in it.
        with suppress(PathNotFound):
            self._moving.remove_folder(folder)
