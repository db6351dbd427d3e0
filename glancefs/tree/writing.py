# SPDX-License-Identifier: Apache-2.0
"""Files on their way to be images: beginning them, and making images of them.

Answers for what a staged file becomes, and in whose place (DESIGN, law 2). When that happens, the door decides that
hands out the files.

Threading: every method may be called from many threads; a file is published by one of them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import (
    Duplicate,
    Forbidden,
    GlancefsError,
    ImageNotFound,
    ImmutableImage,
    IsAFolder,
    NotAuthenticated,
    PathTaken,
    UnsupportedStore,
    WrongStatus,
)
from glancefs.model import Image, ImageStatus
from glancefs.paths import is_dot, name_of, split
from glancefs.rules import check_unprotected, may_change
from glancefs.staging import StagedState, StagedUpload
from glancefs.tree.begun import Begun
from glancefs.tree.entries import Entry, EntryKind, is_broken_off
from glancefs.tree.locking import Locking
from glancefs.tree.looking import Looking, check_not_reserved
from glancefs.tree.ports import StagingArea, TreeFolders, TreeImages
from glancefs.tree.publishing import changes_of, new_image

_OVER: Final = frozenset({StagedState.PUBLISHED, StagedState.DISCARDED})


class Writing:
    """The staged files of one mount, and what becomes of them."""

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        staging: StagingArea,
        begun: Begun,
        looking: Looking,
        locking: Locking,
        context: RequestContext,
        is_public: bool | None,
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._staging: Final = staging
        self._overlay: Final = begun.overlay
        self._looking: Final = looking
        self._context: Final = context
        self._is_public: Final = is_public
        self._locking: Final = locking
        self._turns: Final = begun.turns
        self._report: Final = begun.report

    def create(self, path: str, *, has_folder: bool = False) -> StagedUpload:
        """Begin a file where there is none; see `ImageTree.create`."""
        self._check_may_write(path)
        if not has_folder:
            self._looking.need_folder(split(path)[0])
        if self._looking.find(path) is not None:
            raise PathTaken(f"There is something at {path!r} already.")
        self._locking.check(path, is_bound=True)
        return self._begin(path)

    def stage(self, entry: Entry, *, truncate: bool) -> StagedUpload:
        """Open what is there for writing; see `ImageTree.stage`."""
        if entry.kind is EntryKind.FOLDER:
            raise IsAFolder(f"{entry.path!r} is a folder.")
        if entry.staged is not None:
            if truncate:
                entry.staged.truncate(0)
            return entry.staged
        if entry.image is None:
            raise Forbidden(f"{entry.path!r} is made by the mount.")
        self._check_may_write(entry.path)
        image = entry.image
        if not may_change(self._context, image):
            raise Forbidden(f"Image {image.id!r} belongs to somebody else.")
        if entry.kind is EntryKind.IMAGE:
            if not truncate:
                raise ImmutableImage(f"{entry.path!r} is an image, and data of an image never change.")
            check_unprotected(image)
            self._locking.check(entry.path, image)
            return self._begin(entry.path, replaces=image.id)
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(f"Image {image.id!r} takes no data: its status is {image.status}.")
        self._locking.check(entry.path, image)
        return self._begin(entry.path, queued=image.id, size=0 if truncate else image.size)

    def will_publish(self, staged: StagedUpload) -> bool:
        """Say whether a file is one that becomes an image."""
        is_at_work = is_dot(staged.path) or is_broken_off(staged)
        return staged.state in {StagedState.STAGED, StagedState.FAILED} and not is_at_work

    def publish(self, staged: StagedUpload, *, as_is: bool = False) -> Image | None:
        """Make an image of a staged file; see `ImageTree.publish`."""
        with self._turns.of(staged):
            if staged.state is StagedState.PUBLISHED:
                return staged.image
            if staged.state is StagedState.DISCARDED or not (as_is or self.will_publish(staged)):
                return None
            image = self._publish(staged, staged.path, None, is_complete=as_is or staged.is_written)
            self._hide(staged)
            return image

    def publish_at(self, staged: StagedUpload, path: str, target: Image | None) -> Image:
        """Make an image of a staged file at another path, in place of the image that is there."""
        with self._turns.of(staged):
            if staged.state in _OVER:
                raise WrongStatus(f"{staged.path!r} is {staged.state} already.")
            image = self._publish(staged, path, target, is_complete=staged.is_written)
            self._hide(staged)
            return image

    def abort(self, staged: StagedUpload, reason: str) -> None:
        """Put a file aside; see `ImageTree.abort`."""
        with self._turns.of(staged):
            if staged.state in _OVER or staged.state is StagedState.ABORTED:
                return
            self._overlay.remove(staged.path, staged)
            if not staged.is_written:
                staged.discard()
                return
            # Where even this can't be written any more, the next mount takes the file for an aborted one all the same.
            with suppress(GlancefsError):
                staged.know(state=StagedState.ABORTED)
            self._overlay.add_aborted(staged)
        self._report(staged.path, reason)

    def move(self, staged: StagedUpload, path: str) -> Image | None:
        """Show a staged file at another path, unless it is an image by now: then that is given."""
        with self._turns.of(staged):
            if staged.state in _OVER:
                return staged.image
            old = staged.path
            self._overlay.add(path, staged)
            staged.know(path=path)
            self._overlay.remove(old, staged)
            return None

    def discard(self, staged: StagedUpload) -> None:
        """Remove a staged file."""
        with self._turns.of(staged):
            staged.discard()
            self._hide(staged)

    def release(self, staged: StagedUpload) -> None:
        """Let go of what is over; see `ImageTree.release`."""
        if staged.state in _OVER:
            self._staging.forget(staged)
            self._turns.forget(staged)

    def recover(self) -> None:
        """Show what dead mounts left."""
        for staged in self._staging.recover():
            self._overlay.add_aborted(staged)

    # ---- the steps

    def _check_may_write(self, path: str) -> None:
        check_not_reserved(path)
        name_of(path)
        if self._context.user is None:
            raise NotAuthenticated("Only a known user may add images: log in.")

    def _begin(
        self, path: str, *, replaces: str | None = None, queued: str | None = None, size: int = 0
    ) -> StagedUpload:
        staged = self._staging.create(path, replaces=replaces, queued=queued)
        try:
            if size:
                staged.truncate(size)
            self._overlay.add(path, staged)
        except PathTaken:
            staged.discard()
            self._staging.forget(staged)
            other = self._overlay.get(path)
            if other is None or (replaces, queued) == (None, None):
                raise
            # Somebody else opened the same file at the same time: both write into one.
            return other
        except GlancefsError:
            staged.discard()
            self._staging.forget(staged)
            raise
        return staged

    def _hide(self, staged: StagedUpload) -> None:
        self._overlay.remove(staged.path, staged)
        self._overlay.remove_aborted(staged)

    def _publish(self, staged: StagedUpload, path: str, target: Image | None, *, is_complete: bool) -> Image:
        try:
            queued = self._find(staged.queued) if target is None else None
            if queued is not None:
                image = self._fill(staged, queued, is_complete=is_complete)
            elif (new := self._add_new(staged, path, target, is_complete=is_complete)) is not None:
                image = new
            else:
                replaced = target or self._replaced(staged, path)
                image = self._add(staged, path, replaced, is_complete=is_complete)
        except GlancefsError as error:
            with suppress(GlancefsError):
                if staged.state is StagedState.STAGED:
                    staged.know(state=StagedState.FAILED)
            self._report(path, error)
            raise
        staged.become(image)
        self._turns.remember(image)
        return image

    def _replaced(self, staged: StagedUpload, path: str) -> Image | None:
        """Give the image whose place a file takes: the one that was opened, else the caller's own at the path."""
        image = self._find(staged.replaces) or self._folders.first_named(self._context, name_of(path))
        return image if image is not None and may_change(self._context, image) else None

    def _find(self, image_id: str | None) -> Image | None:
        if image_id is None:
            return None
        try:
            return self._images.get(self._context, image_id)
        except ImageNotFound:
            return None

    def _fill(self, staged: StagedUpload, queued: Image, *, is_complete: bool) -> Image:
        """Bring a file to the queued image that it was opened from."""
        changes = changes_of(staged, queued)
        if not is_complete:
            if staged.size != queued.size:
                self._images.declare_size(self._context, queued.id, staged.size)
            return self._images.update(self._context, queued.id, changes)
        file = staged.seal()
        try:
            return self._images.upload(self._context, queued.id, file, changes=changes)
        except BaseException:
            staged.unseal()
            raise

    def _add_new(self, staged: StagedUpload, path: str, target: Image | None, *, is_complete: bool) -> Image | None:
        """Add an image where there is none of its name, which spares a look; give None where there is one."""
        if target is not None or staged.replaces is not None or not is_complete:
            return None
        try:
            return self._add(staged, path, None, is_complete=True, only_new=True)
        except PathTaken:
            return None

    def _add(
        self, staged: StagedUpload, path: str, replaced: Image | None, *, is_complete: bool, only_new: bool = False
    ) -> Image:
        """Add an image, in place of another; an id that is taken and a store that is not here are given up."""
        name = replaced.name if replaced is not None else name_of(path)
        file = staged.seal() if is_complete else None
        dropped: set[str] = set()
        try:
            while True:
                new = new_image(
                    staged,
                    name=name,
                    replaced=replaced,
                    is_public=self._is_public,
                    is_complete=is_complete,
                    dropped=dropped,
                )
                replacing = None if replaced is None else replaced.id
                try:
                    if file is None:
                        return self._images.create(self._context, new, replacing=replacing)
                    return self._images.add(self._context, new, file, replacing=replacing, only_new=only_new)
                except (Duplicate, UnsupportedStore) as error:
                    field = "id" if isinstance(error, Duplicate) else "store"
                    if getattr(new, field) is None:
                        raise
                    dropped.add(field)
        except BaseException:
            staged.unseal()
            raise
