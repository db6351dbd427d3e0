# SPDX-License-Identifier: Apache-2.0
"""Removing and renaming, of files and of folders.

Answers for what a move means for each kind of thing, and for folders that nobody made: they stay when their last file
goes, as on every file system.

Threading: every method may be called from many threads; the registry makes each step whole.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import (
    FolderNotEmpty,
    Forbidden,
    ImageNotFound,
    InvalidRequest,
    IsAFolder,
    NotAFolder,
    NotAuthenticated,
    PathNotFound,
    PathTaken,
)
from glancefs.model import Image, ImageChanges
from glancefs.paths import RESERVED, is_dot, is_reserved, name_of, path_of, split
from glancefs.rules import check_unprotected, may_change
from glancefs.staging import StagedState, StagedUpload
from glancefs.tree.entries import Entry, EntryKind, is_broken_off
from glancefs.tree.locking import Locking
from glancefs.tree.looking import Looking, check_not_reserved
from glancefs.tree.overlay import Overlay
from glancefs.tree.ports import TreeFolders, TreeImages
from glancefs.tree.special import PENDING
from glancefs.tree.writing import Writing


class Moving:
    """What removes and renames things in the tree of one caller."""

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        overlay: Overlay,
        looking: Looking,
        writing: Writing,
        locking: Locking,
        context: RequestContext,
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._overlay: Final = overlay
        self._looking: Final = looking
        self._writing: Final = writing
        self._locking: Final = locking
        self._context: Final = context

    # ---- removing

    def remove(self, path: str) -> Entry:
        """Remove a file; see `ImageTree.remove`."""
        entry = self._file(path)
        if entry.staged is not None:
            image_id = entry.staged.replaces or entry.staged.queued
            if image_id is not None:
                with suppress(ImageNotFound):
                    self._images.delete(self._context, image_id)
            self._locking.forget(path)
            self._writing.discard(entry.staged)
            if entry.staged.image is not None:
                # It became an image while this waited for it.
                self._images.delete(self._context, entry.staged.image.id)
        elif entry.image is not None:
            self._images.delete(self._context, entry.image.id)
        if not is_reserved(path):
            self._keep_folder(split(path)[0])
        return entry

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder; see `ImageTree.remove_folder`."""
        check_not_reserved(path)
        if not path:
            raise Forbidden("The root stays.")
        entry = self._looking.lookup(path)
        if entry.kind is not EntryKind.FOLDER:
            raise NotAFolder(f"{path!r} is no folder.")
        if self._overlay.has_below(path):
            raise FolderNotEmpty(f"The folder {path!r} is not empty.")
        self._folders.remove(self._context, path)
        self._keep_folder(split(path)[0])

    # ---- renaming

    def rename(self, old: str, new: str, *, replace: bool) -> Entry:
        """Move a file or a folder; see `ImageTree.rename`."""
        check_not_reserved(new)
        entry = self._looking.lookup(old) if not is_reserved(old) else self._file(old)
        if old == new:
            return entry
        if not old or not new:
            raise InvalidRequest("The root can't move.")
        name_of(new)
        if self._context.user is None:
            raise NotAuthenticated("Only a known user may rename images: log in.")
        self._looking.need_folder(split(new)[0])
        target = self._looking.find(new)
        if target is not None and not replace:
            raise PathTaken(f"There is something at {new!r} already.")
        if entry.kind is EntryKind.FOLDER:
            self._move_folder(old, new, target)
            moved = None
        else:
            if target is not None and target.kind is EntryKind.FOLDER:
                raise IsAFolder(f"{new!r} is a folder.")
            moved = self._move_file(entry, new, target)
        if not is_reserved(old):
            self._keep_folder(split(old)[0])
        found = self._looking.find(new)
        if found is None and moved is not None:
            # What takes the place of NAME~ID has an id of its own, and so a path of its own.
            return self._looking.image_entry(self._looking.path_of_image(moved), moved)
        return found or self._looking.lookup(new)

    def rename_image(self, entry: Entry, name: str) -> Entry:
        """Give an image another name, which may be any text. Raises as `rename` does, PathTaken for the same path."""
        path = path_of(name)
        if entry.image is None:
            raise ImageNotFound(f"{entry.path!r} is no image.")
        target = self._looking.find(path)
        if target is not None and target.path != entry.path:
            raise PathTaken(f"There is something at {path!r} already.")
        image = self._images.update(self._context, entry.image.id, ImageChanges(name=name))
        self._keep_folder(split(entry.path)[0])
        return self._looking.image_entry(self._looking.path_of_image(image), image)

    # ---- the kinds of things

    def _move_file(self, entry: Entry, new: str, target: Entry | None) -> Image | None:
        """Move a file, and give the image that it is, if it is one."""
        replaced = self._image_at(target)
        if replaced is not None:
            self._check_replaceable(replaced)
        staged, moved = entry.staged, None
        has_locks = staged is not None and self._locking.check_move(entry.path, new, replaced)
        if staged is None:
            moved = self._move_image(self._changeable(entry), new, replaced)
        elif is_reserved(entry.path) or (is_dot(entry.path) and not is_dot(new) and not is_broken_off(staged)):
            if is_dot(new):
                self._resume(staged, new, target)
            else:
                moved = self._writing.publish_at(staged, new, replaced)
        else:
            self._move_staged(staged, new, replaced, target)
        if target is not None and target.staged is not None and target.staged is not staged:
            self._writing.discard(target.staged)
        if has_locks:
            self._locking.forget(entry.path)
        return moved

    def _move_image(self, image: Image, new: str, replaced: Image | None) -> Image:
        if replaced is not None and replaced.id == image.id:
            return image
        name = replaced.name if replaced is not None else name_of(new)
        replacing = None if replaced is None else replaced.id
        return self._images.update(self._context, image.id, ImageChanges(name=name), replacing=replacing)

    def _move_staged(self, staged: StagedUpload, new: str, replaced: Image | None, target: Entry | None) -> None:
        """Move a file that stays staged, and with it the image that it was opened from."""
        image_id = staged.replaces or staged.queued
        if image_id is not None:
            with suppress(ImageNotFound):
                self._move_image(self._images.get(self._context, image_id), new, replaced)
        if target is not None and target.staged is not None:
            self._writing.discard(target.staged)
        image = self._writing.move(staged, new)
        if image is not None:
            # It became an image while this waited for it.
            self._move_image(image, new, replaced)

    def _resume(self, staged: StagedUpload, new: str, target: Entry | None) -> None:
        """Give a file that was put aside a dot-name: it is at work again."""
        if target is not None and target.staged is not None:
            self._writing.discard(target.staged)
        self._overlay.add(new, staged)
        self._overlay.remove_aborted(staged)
        staged.know(path=new, state=StagedState.STAGED)

    def _move_folder(self, old: str, new: str, target: Entry | None) -> None:
        if target is not None and target.kind is not EntryKind.FOLDER:
            raise NotAFolder(f"{new!r} is no folder.")
        if f"{new}/".startswith(f"{old}/"):
            raise InvalidRequest(f"The folder {old!r} can't move into itself.")
        if self._overlay.has_below(new):
            raise FolderNotEmpty(f"The folder {new!r} is not empty.")
        staged = self._overlay.below(old)
        try:
            self._folders.move(self._context, old, new)
        except PathNotFound:
            # Staged files alone make a folder that the registry does not know.
            if not staged:
                raise
            self._folders.make(self._context, new)
        for path, file in staged:
            moved = new + path[len(old) :]
            file.know(path=moved)
            self._overlay.remove(path, file)
            self._overlay.add(moved, file)

    # ---- rules

    def _file(self, path: str) -> Entry:
        """Give a file that may be removed or renamed: not a folder, and of ``.glance`` only what is pending."""
        if not is_reserved(path):
            return self._looking.need_file(path)
        name = path.removeprefix(f"{PENDING}/")
        staged = self._overlay.aborted(name)
        if name == path or staged is None:
            raise Forbidden(f"{RESERVED!r} is the mount's own; nothing can be changed in it.")
        return Entry(path=path, kind=EntryKind.STAGED, key=f"staged:{staged.key}", staged=staged)

    def _image_at(self, target: Entry | None) -> Image | None:
        """Give the image that is at a path, perhaps under a staged file that was to take its place."""
        if target is None or target.staged is None:
            return None if target is None else target.image
        image_id = target.staged.replaces or target.staged.queued
        if image_id is None:
            return None
        try:
            return self._images.get(self._context, image_id)
        except ImageNotFound:
            return None

    def _changeable(self, entry: Entry) -> Image:
        if entry.image is None or not may_change(self._context, entry.image):
            raise Forbidden(f"{entry.path!r} belongs to somebody else.")
        return entry.image

    def _check_replaceable(self, image: Image) -> None:
        if not may_change(self._context, image):
            raise Forbidden(f"Image {image.id!r} belongs to somebody else.")
        check_unprotected(image)

    def _keep_folder(self, path: str) -> None:
        """Make a folder by hand that would be gone with what was in it."""
        if path and self._looking.folder(path) is None:
            with suppress(NotAuthenticated):
                self._folders.keep(self._context, path)
