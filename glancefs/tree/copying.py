# SPDX-License-Identifier: Apache-2.0
"""Copying files and folders within the tree, without sending their bytes through a client.

Answers for what a copy takes with it: data, type, formats and properties of an image, and the dead properties of images
and folders (RFC 4918, section 9.8.2). A copy belongs to the caller. At a path where the caller has an image it takes
that one's place (DESIGN, law 2), and its visibility; else the copy of one's own image is as visible as that, and of
somebody else's as new images are. Protection is not copied, nor are locks (section 7.6).

Threading: every method may be called from many threads; a folder is copied image by image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import (
    FolderNotEmpty,
    Forbidden,
    GlancefsError,
    InvalidRequest,
    IsAFolder,
    NotAFolder,
    NotAuthenticated,
    PathTaken,
    StoreFull,
    Unavailable,
)
from glancefs.model import Image, NewImage
from glancefs.paths import is_dot, join, name_of, split
from glancefs.rules import check_unprotected, may_change
from glancefs.staging import Said, StagedUpload
from glancefs.tree.entries import Entry, EntryKind
from glancefs.tree.locking import Locking
from glancefs.tree.looking import Looking, check_not_reserved
from glancefs.tree.ports import TreeFolders, TreeImages
from glancefs.tree.publishing import CARRIED_OVER
from glancefs.tree.writing import Writing

_BLOCK: Final = 1024 * 1024
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something in a folder that could not be copied."""

    path: str
    """Where the copy would be."""
    error: GlancefsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What came of a copy."""

    entry: Entry
    """What is at the destination now."""
    failures: tuple[Failure, ...] = ()
    """What of a folder is not there; what would be in it was not tried (section 9.8.3)."""


class Copying:
    """What copies things in the tree of one caller."""

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        looking: Looking,
        writing: Writing,
        locking: Locking,
        context: RequestContext,
        is_public: bool | None,
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._looking: Final = looking
        self._writing: Final = writing
        self._locking: Final = locking
        self._context: Final = context
        self._is_public: Final = is_public

    def copy(self, source: str, destination: str, *, is_deep: bool, replaces: bool) -> Copied:
        """Copy a file or a folder; see `ImageTree.copy`."""
        check_not_reserved(source)
        check_not_reserved(destination)
        if self._context.user is None:
            raise NotAuthenticated("Only a known user may add images: log in.")
        entry = self._looking.lookup(source)
        if source == destination or not destination:
            raise InvalidRequest(f"{source!r} can't be copied onto itself.")
        name_of(destination)
        self._looking.need_folder(split(destination)[0])
        target = self._looking.find(destination)
        if target is not None and not replaces:
            raise PathTaken(f"There is something at {destination!r} already.")
        if entry.kind is EntryKind.FOLDER:
            return self._copy_folder(entry, destination, target, is_deep=is_deep)
        if target is not None and target.kind is EntryKind.FOLDER:
            raise IsAFolder(f"{destination!r} is a folder.")
        return Copied(entry=self._copy_file(entry, destination, target))

    # ---- files

    def _copy_file(self, entry: Entry, destination: str, target: Entry | None) -> Entry:
        if entry.image is None and entry.staged is None:
            raise Forbidden(f"{entry.path!r} is made by the mount.")
        if target is not None:
            self._check_replaceable(target)
        is_staged = (
            entry.staged is not None or is_dot(destination) or (target is not None and target.staged is not None)
        )
        if entry.image is not None and not is_staged:
            return self._copy_image(entry.image, destination, target)
        return self._copy_bytes(entry, destination, target)

    def _copy_image(self, image: Image, destination: str, target: Entry | None) -> Entry:
        replaced = None if target is None else target.image
        is_own = image.owner == self._context.user
        is_public = replaced.is_public if replaced else image.is_public if is_own else self._is_public
        new = NewImage(
            name=replaced.name if replaced else name_of(destination),
            type=image.type,
            is_public=is_public,
            properties=image.properties,
            owner=replaced.owner if replaced else None,
            **{field: getattr(image, field) for field in CARRIED_OVER},
        )
        copied = self._images.copy(self._context, image.id, new, replacing=replaced.id if replaced else None)
        found = self._looking.find(destination)
        if found is not None and found.image is not None and found.image.id == copied.id:
            return found
        # What takes the place of NAME~ID has an id of its own, and so a path of its own.
        return self._looking.image_entry(self._looking.path_of_image(copied), copied)

    def _copy_bytes(self, entry: Entry, destination: str, target: Entry | None) -> Entry:
        """Copy from or to a file that is not yet an image; it becomes one unless it stays at work."""
        staged = self._writing.create(destination) if target is None else self._writing.stage(target, truncate=True)
        try:
            position = 0
            for block in self._blocks(entry):
                # Zeros that are left out are a hole; the first write makes it a file with data.
                if not position or block.count(0) < len(block):
                    staged.write_at(position, block)
                position += len(block)
            staged.truncate(entry.size)
            staged.know(said=_said(entry))
            is_published = self._writing.will_publish(staged)
            if is_published:
                self._writing.publish(staged)
        except BaseException:
            self._writing.discard(staged)
            self._writing.release(staged)
            raise
        if is_published:
            self._writing.release(staged)
        return self._looking.lookup(destination)

    def _blocks(self, entry: Entry) -> Iterator[bytes]:
        if entry.staged is not None:
            yield from _blocks_of(entry.staged, entry.size)
        elif entry.image is not None and entry.kind is EntryKind.IMAGE:
            with self._images.open_image(entry.image) as reader:
                yield from reader.iter()

    def _check_replaceable(self, target: Entry) -> None:
        if target.image is not None:
            if not may_change(self._context, target.image):
                raise Forbidden(f"{target.path!r} belongs to somebody else.")
            check_unprotected(target.image)

    # ---- folders

    def _copy_folder(self, entry: Entry, destination: str, target: Entry | None, *, is_deep: bool) -> Copied:
        if target is not None and target.kind is not EntryKind.FOLDER:
            raise NotAFolder(f"{destination!r} is no folder.")
        if is_deep and f"{destination}/".startswith(f"{entry.path}/" if entry.path else ""):
            raise InvalidRequest(f"The folder {entry.path!r} can't be copied into itself.")
        if target is None:
            self._folders.make(self._context, destination)
        elif any(self._looking.list(destination, page_size=1)):
            raise FolderNotEmpty(f"The folder {destination!r} is not empty.")
        self._locking.copy_those_of_folder(entry.path, destination)
        failures = tuple(self._copy_below(entry.path, destination)) if is_deep else ()
        return Copied(entry=self._looking.lookup(destination), failures=failures)

    def _copy_below(self, source: str, destination: str) -> Iterator[Failure]:
        """Copy what is in a folder, and tell what could not be."""
        for page in self._looking.list(source, page_size=_PAGE):
            for entry in page:
                path = join(destination, entry.name)
                try:
                    if entry.kind is EntryKind.FOLDER:
                        self._folders.make(self._context, path)
                        self._locking.copy_those_of_folder(entry.path, path)
                    else:
                        self._copy_file(entry, path, self._looking.find(path))
                except (Unavailable, StoreFull):
                    # The rest would fare no better.
                    raise
                except GlancefsError as error:
                    yield Failure(path=path, error=error)
                    continue
                if entry.kind is EntryKind.FOLDER:
                    yield from self._copy_below(entry.path, path)


def _said(entry: Entry) -> Said:
    """Give what a copy that is not yet an image is said to be."""
    if entry.staged is not None:
        return replace(entry.staged.said, id=None, protected=None)
    if entry.image is None:
        return Said()
    plain = {field: getattr(entry.image, field) for field in CARRIED_OVER}
    return Said(type=entry.image.type, properties=dict(entry.image.properties), **plain)


def _blocks_of(staged: StagedUpload, size: int) -> Iterator[bytes]:
    position = 0
    while position < size:
        block = staged.read_at(position, min(_BLOCK, size - position))
        if not block:
            return
        yield block
        position += len(block)
