# SPDX-License-Identifier: Apache-2.0
"""Write locks on paths of the tree, and dead properties of what is at them: what WebDAV adds to files.

Answers for whose things a lock on a path guards. A lock on an image guards its owner's things, wherever an admin may
see the image; a lock on a folder guards the caller's own in it, an admin's lock everybody's; a lock on a path where
nothing is guards what the caller may put there. Locks are kept at the path that the image has for its owner.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, LockNotFound
from glancefs.model import Image
from glancefs.namesakes import namesake_paths
from glancefs.paths import is_reserved, name_of, path_of, split
from glancefs.registries.dead_properties import OfFolder, OfImage, Subject
from glancefs.registries.locks import Lock, Touched
from glancefs.rules import may_change
from glancefs.tree.entries import Entry, EntryKind
from glancefs.tree.looking import Looking, check_not_reserved
from glancefs.tree.ports import TreeDeadProperties, TreeFolders, TreeLocks


class Locking:
    """The locks and the dead properties in the tree of one caller; without ``locks`` there are none."""

    def __init__(
        self,
        *,
        locks: TreeLocks | None,
        dead_properties: TreeDeadProperties | None,
        folders: TreeFolders,
        looking: Looking,
        context: RequestContext,
    ) -> None:
        self._locks: Final = locks
        self._dead_properties: Final = dead_properties
        self._folders: Final = folders
        self._looking: Final = looking
        self._context: Final = context

    # ---- locks

    def lock(self, path: str, *, is_shared: bool, is_deep: bool, owner_xml: str, seconds: int | None) -> Lock:
        """Take a lock; see `ImageTree.lock`."""
        locks = self._needed()
        check_not_reserved(path)
        entry = self._looking.find(path)
        if entry is None:
            name_of(path)
            self._looking.need_folder(split(path)[0])
            self.check(path, is_bound=True)
        elif entry.image is not None and not may_change(self._context, entry.image):
            raise Forbidden(f"{path!r} belongs to somebody else.")
        root, guards = self._root(path, entry)
        lock = locks.acquire(
            self._context,
            root,
            guards=guards,
            is_shared=is_shared,
            is_deep=is_deep,
            owner_xml=owner_xml,
            seconds=seconds,
        )
        return replace(lock, path=path)

    def refresh(self, path: str, token: str, *, seconds: int | None) -> Lock:
        """Let a lock last longer; see `ImageTree.refresh_lock`."""
        held = self._held(path, token)
        return replace(self._needed().refresh(self._context, token, seconds=seconds), path=held.path)

    def unlock(self, path: str, token: str) -> None:
        """Give a lock back; see `ImageTree.unlock`."""
        self._held(path, token)
        self._needed().release(self._context, token)

    def on(self, path: str, entry: Entry | None = None) -> Sequence[Lock]:
        """Give the locks that hold for a path; see `ImageTree.locks_on`."""
        if self._locks is None or is_reserved(path):
            return ()
        root, guards = self._root(path, entry or self._looking.find(path))
        covering = self._locks.covering(root, guarding=guards)
        return [replace(lock, path=path) if lock.path == root else lock for lock in covering]

    def below(self, path: str) -> Sequence[Lock]:
        """Give the locks on paths below a folder; see `ImageTree.locks_below`."""
        if self._locks is None or is_reserved(path):
            return ()
        return self._locks.below(path, guarding=None if self._context.is_admin else self._context.user)

    def check(self, path: str, image: Image | None = None, *, is_bound: bool = False) -> None:
        """Raise Locked where a file can't be written, for a lock, so that nobody sends data in vain."""
        if self._locks is not None:
            root, guards = (path, self._context.user) if image is None else (self._own_path(path, image), image.owner)
            self._locks.check(self._context, [Touched(path=root, guarding=guards, is_bound=is_bound)])

    def check_move(self, old: str, new: str, image: Image | None) -> bool:
        """Raise Locked where a file that no registry knows can't move onto what is there, for a lock.

        Gives whether there are locks, which then have to be forgotten.
        """
        if self._locks is None:
            return False
        touched = [Touched(path=old, guarding=self._context.user, is_bound=True)] if not is_reserved(old) else []
        there = (new, self._context.user) if image is None else (self._own_path(new, image), image.owner)
        return self._locks.check(self._context, [*touched, Touched(path=there[0], guarding=there[1], is_bound=True)])

    def check_all(self, path: str) -> None:
        """Raise Locked where something can't be removed, with all below it, or added, for a lock."""
        if is_reserved(path):
            return
        entry = self._looking.find(path)
        self.check(path, None if entry is None else entry.image, is_bound=True)
        if entry is not None and entry.kind is EntryKind.FOLDER and self._locks is not None:
            guards = None if self._context.is_admin else self._context.user
            self._locks.check(self._context, [Touched(path=path, guarding=guards, is_bound=True, is_deep=True)])

    def forget(self, path: str) -> None:
        """Remove the locks on a path where something was that no registry knows. Raises Locked."""
        if self._locks is not None and not is_reserved(path):
            self._locks.forget(self._context, path, guarding=self._context.user)

    # ---- dead properties

    def dead_properties(self, entries: Sequence[Entry]) -> Mapping[str, Mapping[str, str]]:
        """Give dead properties by `Entry.key`; see `ImageTree.dead_properties`."""
        keys = {subject: entry.key for entry in entries if (subject := self._subject(entry)) is not None}
        if self._dead_properties is None or not keys:
            return {}
        return {keys[subject]: values for subject, values in self._dead_properties.get_many(keys.keys()).items()}

    def dead_properties_of_images(self, image_ids: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Give them by identifiers; see `ImageTree.dead_properties_of_images`."""
        ids: dict[Subject, str] = {OfImage(image_id): image_id for image_id in image_ids}
        if self._dead_properties is None or not ids:
            return {}
        return {ids[subject]: values for subject, values in self._dead_properties.get_many(ids.keys()).items()}

    def change_dead_properties(self, entry: Entry, *, values: Mapping[str, str], removed: Collection[str]) -> None:
        """Set and remove dead properties; see `ImageTree.change_dead_properties`."""
        subject = self._subject(entry)
        if self._dead_properties is None or subject is None:
            raise Forbidden(f"{entry.path!r} keeps no properties of others.")
        self._dead_properties.change(self._context, subject, values=values, removed=removed)

    def copy_those_of_folder(self, source: str, target: str) -> None:
        """Give a folder the dead properties of another, as the caller sees them."""
        user = self._context.user
        if self._dead_properties is not None and user is not None:
            self._dead_properties.copy(self._context, OfFolder(user, source), OfFolder(user, target))

    # ---- whose it is

    def _subject(self, entry: Entry) -> Subject | None:
        if entry.image is not None:
            return OfImage(entry.image.id)
        if entry.kind is EntryKind.FOLDER and self._context.user is not None and not is_reserved(entry.path):
            return OfFolder(self._context.user, entry.path)
        return None

    def _root(self, path: str, entry: Entry | None) -> tuple[str, str | None]:
        """Give where a lock on a path is kept, and whose things it guards."""
        if entry is not None and entry.image is not None:
            return self._own_path(path, entry.image), entry.image.owner
        if entry is not None and entry.kind is EntryKind.FOLDER and self._context.is_admin:
            return path, None
        return path, self._context.user

    def _own_path(self, path: str, image: Image) -> str:
        """Give the path that an image has for its owner; the caller sees it at ``path``."""
        # An admin sees more than the owner does, and so perhaps something else before it.
        if image.owner is None or not self._context.is_admin:
            return path
        plain = path_of(image.name)
        found = self._folders.at(RequestContext(user=image.owner), image.name)
        is_first = found.folder is None and found.image is not None and found.image.id == image.id
        return plain if is_first else next(namesake_paths(plain, image.id))

    def _held(self, path: str, token: str) -> Lock:
        lock = next((lock for lock in self.on(path) if lock.token == token), None)
        if lock is None:
            raise LockNotFound(f"No lock of this token holds for {path!r}.")
        return lock

    def _needed(self) -> TreeLocks:
        if self._locks is None:
            raise Forbidden("Nothing can be locked here.")
        return self._locks
