# SPDX-License-Identifier: Apache-2.0
"""The registry that another machine serves: `glancefs registry` there, this here, HTTP between them.

Answers for `Registry` over the calls of `docs/reference/registry.md`, for how long an answer is waited for, and for
asking again: a call that only reads may be repeated, and a change carries a key under which the other end makes it once
(`ServedRegistry.once`), and not after we have given up. So no change is made twice, none that was made is reported as
refused, and none comes when what it names is gone. Caches nothing.

Threading: every method may be called from many threads at once; connections are pooled. Not to be used on both sides of
a fork.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from glancefs import errors
from glancefs.model import Image, Location
from glancefs.registries.base import POLLED, Answered, Changes, Holdings, ImageQuery, Superseded
from glancefs.registries.calls import every_call
from glancefs.registries.dead_properties import Subject
from glancefs.registries.folders import Folder, FolderPage, Found, View
from glancefs.registries.locks import Lock, Presented, Touched
from glancefs.registries.wire import PREFIX, Language, Wire

_AT_ONCE: Final = 1000
"""How many locations or identifiers are asked about in one call, and how many changes."""

_PASSED_ON: Final = (
    *(errors.InvalidRequest, errors.ImageNotFound, errors.PathNotFound, errors.LockNotFound, errors.Conflict),
    *(errors.ProtectedImage, errors.StoreFull),
)
"""Errors that are the asker's own; all others are trouble between us and the registry."""


_LONGEST_WAIT: Final = 30
"""For how many seconds a server lets a request wait for a change, at the most."""


@dataclass(slots=True)
class _Hearing:
    """Up to which revision changes were heard of; whoever waits for the next one has the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: int | None = None
    news: tuple[int, Changes] | None = None
    """What was heard last, and after which revision that is; it need not be asked for again."""
    heard_at: float = float("-inf")


class RemoteRegistry:
    """Keeps the metadata of images in the registry at a URL.

    ``token`` is the secret that both ends share; ``timeout`` is for how many seconds an answer is waited for before the
    registry counts as unavailable. Raises ConfigError for a URL that names no server.
    """

    def __init__(
        self,
        *,
        url: str,
        token: str | None = None,
        cacert: Path | None = None,
        timeout: float = 4.0,
        connections: int = 64,
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        language = Language(
            prefix=PREFIX,
            calls=every_call,
            refusal=_refusal,
            what="a registry",
            who="The registry at {url}",
            unavailable=errors.RegistryUnavailable,
        )
        try:
            wire = Wire(
                url=url, language=language, headers=headers, cacert=cacert, timeout=timeout, connections=connections
            )
        except errors.InvalidRequest as error:
            message = f"The registry can't be at this URL. {error}"
            raise errors.ConfigError(message) from None
        self._hearing = _Hearing()
        self._speak(wire)

    def _speak(self, wire: Wire) -> Self:
        self._wire = wire
        self._folders = RemoteFolders(self._wire)
        self._locks = RemoteLocks(self._wire)
        self._dead_properties = RemoteDeadProperties(self._wire)
        return self

    def once(self, key: str, *, until: float | None = None) -> Self:
        """See `ServedRegistry.once`."""
        return copy(self)._speak(self._wire.under(key, until=until))  # noqa: SLF001 - a copy of this very object

    @property
    def folders(self) -> RemoteFolders:
        """See `Registry.folders`."""
        return self._folders

    @property
    def locks(self) -> RemoteLocks:
        """See `Registry.locks`."""
        return self._locks

    @property
    def dead_properties(self) -> RemoteDeadProperties:
        """See `Registry.dead_properties`."""
        return self._dead_properties

    def add(
        self,
        image: Image,
        *,
        superseding: Superseded | None = None,
        copied_from: str | None = None,
        presented: Presented | None = None,
        vacant_for: View | None = None,
    ) -> Image:
        """See `Registry.add`."""
        added: Image = self._wire.call(
            "add",
            image=image,
            superseding=superseding,
            copied_from=copied_from,
            presented=presented,
            vacant_for=vacant_for,
        )
        return added

    def get(self, image_id: str) -> Image:
        """See `Registry.get`."""
        image: Image = self._wire.call("get", image_id=image_id)
        return image

    def find(self, query: ImageQuery) -> Sequence[Image]:
        """See `Registry.find`."""
        page: Sequence[Image] = self._wire.call("find", query=query)
        return page

    def replace(
        self,
        image: Image,
        *,
        expected_revision: int,
        superseding: Superseded | None = None,
        presented: Presented | None = None,
    ) -> Image:
        """See `Registry.replace`."""
        replaced: Image = self._wire.call(
            "replace", image=image, expected_revision=expected_revision, superseding=superseding, presented=presented
        )
        return replaced

    def delete(
        self, image_id: str, *, expected_revision: int, deleted_at: datetime, presented: Presented | None = None
    ) -> Image:
        """See `Registry.delete`."""
        tombstone: Image = self._wire.call(
            "delete",
            image_id=image_id,
            expected_revision=expected_revision,
            deleted_at=deleted_at,
            presented=presented,
        )
        return tombstone

    def changes(self, *, since: int, limit: int = 1000) -> Changes:
        """See `Registry.changes`."""
        news, self._hearing.news = self._hearing.news, None
        if news is not None and news[0] == since and limit >= _AT_ONCE:
            return news[1]
        changes: Changes = self._wire.call("changes", since=since, limit=limit)
        return changes

    @property
    def tells_of_changes(self) -> bool:
        """See `Registry.tells_of_changes`."""
        return True

    def wait_for_change(self, *, timeout: float) -> None:
        """See `Registry.wait_for_change`: the server answers as soon as there is a change.

        Where they come one after the other, four times a second. A server that does not answer is waited for too;
        `changes` tells of it. What came before the first call is news.
        """
        hearing = self._hearing
        with hearing.lock:
            pause = time.monotonic() + min(timeout, POLLED)
            known = hearing.known
            try:
                if known is None:
                    hearing.known = self.revision()
                    return
                wait = min(_LONGEST_WAIT, max(1, math.ceil(timeout)))
                news: Changes = self._wire.news("changes", since=known, wait=wait, limit=_AT_ONCE)
            except errors.GlancefsError:
                hearing.known = None
            else:
                if news.revision != known:
                    hearing.known, hearing.news = news.revision, (known, news)
                    pause = hearing.heard_at + POLLED
                    hearing.heard_at = max(time.monotonic(), pause)
        time.sleep(max(0.0, pause - time.monotonic()))

    def revision(self) -> int:
        """See `Registry.revision`."""
        revision: int = self._wire.call("revision")
        return revision

    def identity(self) -> str:
        """See `Registry.identity`."""
        identity: str = self._wire.call("identity")
        return identity

    def answered(self, key: str) -> Answered | None:
        """See `Registry.answered`."""
        answered: Answered | None = self._wire.call("answered", key=key)
        return answered

    def named_locations(self, locations: Collection[Location]) -> Collection[Location]:
        """See `Registry.named_locations`."""
        named: set[Location] = set()
        for piece in _pieces(locations):
            named.update(self._wire.call("named_locations", locations=piece))
        return named

    def holdings(self) -> Sequence[Holdings]:
        """See `Registry.holdings`."""
        holdings: Sequence[Holdings] = self._wire.call("holdings")
        return holdings

    def close(self) -> None:
        """See `Registry.close`."""
        self._wire.close()


class RemoteFolders:
    """The tree of a remote registry."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def images_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> FolderPage:
        """See `FolderRegistry.images_in`."""
        page: FolderPage = self._wire.call("folders/images_in", path=path, view=view, after=after, limit=limit)
        return page

    def folders_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> Sequence[Folder]:
        """See `FolderRegistry.folders_in`."""
        page: Sequence[Folder] = self._wire.call("folders/folders_in", path=path, view=view, after=after, limit=limit)
        return page

    def folder(self, path: str, view: View) -> Folder:
        """See `FolderRegistry.folder`."""
        folder: Folder = self._wire.call("folders/folder", path=path, view=view)
        return folder

    def first_named(self, name: str, view: View) -> Image | None:
        """See `FolderRegistry.first_named`."""
        image: Image | None = self._wire.call("folders/first_named", name=name, view=view)
        return image

    def at(self, name: str, view: View) -> Found:
        """See `FolderRegistry.at`."""
        found: Found = self._wire.call("folders/at", name=name, view=view)
        return found

    def first_of_their_names(self, image_ids: Collection[str], view: View) -> Collection[str]:
        """See `FolderRegistry.first_of_their_names`."""
        first: set[str] = set()
        for piece in _pieces(image_ids):
            first.update(self._wire.call("folders/first_of_their_names", image_ids=piece, view=view))
        return first

    def add_folder(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """See `FolderRegistry.add_folder`."""
        added: Folder = self._wire.call("folders/add_folder", folder=folder, presented=presented)
        return added

    def set_folder_mtime(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """See `FolderRegistry.set_folder_mtime`."""
        changed: Folder = self._wire.call("folders/set_folder_mtime", folder=folder, presented=presented)
        return changed

    def remove_folder(self, path: str, view: View, *, removed_at: datetime, presented: Presented | None = None) -> None:
        """See `FolderRegistry.remove_folder`."""
        self._wire.call("folders/remove_folder", path=path, view=view, removed_at=removed_at, presented=presented)

    def move_folder(
        self, old: str, new: str, view: View, *, moved_at: datetime, presented: Presented | None = None
    ) -> int:
        """See `FolderRegistry.move_folder`."""
        moved: int = self._wire.call(
            "folders/move_folder", old=old, new=new, view=view, moved_at=moved_at, presented=presented
        )
        return moved


class RemoteLocks:
    """The write locks of a remote registry."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def acquire(self, lock: Lock, *, now: datetime) -> Lock:
        """See `LockRegistry.acquire`."""
        acquired: Lock = self._wire.call("locks/acquire", lock=lock, now=now)
        return acquired

    def refresh(self, token: str, *, user: str, expires_at: datetime, now: datetime) -> Lock:
        """See `LockRegistry.refresh`."""
        lock: Lock = self._wire.call("locks/refresh", token=token, user=user, expires_at=expires_at, now=now)
        return lock

    def release(self, token: str, *, user: str | None, now: datetime) -> Lock:
        """See `LockRegistry.release`."""
        lock: Lock = self._wire.call("locks/release", token=token, user=user, now=now)
        return lock

    def get(self, token: str, *, now: datetime) -> Lock:
        """See `LockRegistry.get`."""
        lock: Lock = self._wire.call("locks/get", token=token, now=now)
        return lock

    def covering(self, path: str, *, guarding: str | None, now: datetime) -> Sequence[Lock]:
        """See `LockRegistry.covering`."""
        locks: Sequence[Lock] = self._wire.call("locks/covering", path=path, guarding=guarding, now=now)
        return locks

    def below(self, path: str, *, guarding: str | None, now: datetime) -> Sequence[Lock]:
        """See `LockRegistry.below`."""
        locks: Sequence[Lock] = self._wire.call("locks/below", path=path, guarding=guarding, now=now)
        return locks

    def check(self, touched: Collection[Touched], presented: Presented) -> bool:
        """See `LockRegistry.check`."""
        has_locks: bool = self._wire.call("locks/check", touched=touched, presented=presented)
        return has_locks

    def forget(self, path: str, *, guarding: str | None, presented: Presented) -> None:
        """See `LockRegistry.forget`."""
        self._wire.call("locks/forget", path=path, guarding=guarding, presented=presented)


class RemoteDeadProperties:
    """The dead properties of a remote registry."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self, subject: Subject) -> Mapping[str, str]:
        """See `DeadPropertyRegistry.get`."""
        properties: Mapping[str, str] = self._wire.call("dead_properties/get", subject=subject)
        return properties

    def get_many(self, subjects: Collection[Subject]) -> Mapping[Subject, Mapping[str, str]]:
        """See `DeadPropertyRegistry.get_many`."""
        found: dict[Subject, Mapping[str, str]] = {}
        for piece in _pieces(subjects):
            found.update(self._wire.call("dead_properties/get_many", subjects=piece))
        return found

    def change(
        self, subject: Subject, *, values: Mapping[str, str], removed: Collection[str] = (), presented: Presented
    ) -> None:
        """See `DeadPropertyRegistry.change`."""
        self._wire.call(
            "dead_properties/change", subject=subject, values=values, removed=list(removed), presented=presented
        )


def _refusal(url: str, error: errors.GlancefsError, is_told: bool) -> errors.GlancefsError:  # noqa: FBT001 - one of a language's functions
    if is_told and (isinstance(error, _PASSED_ON) or type(error) is errors.Forbidden):
        return error
    if isinstance(error, errors.NotAuthenticated):
        return errors.RegistryUnavailable(f"The registry at {url} does not take our registry_token.")
    if isinstance(error, errors.RegistryUnavailable):
        return error
    return errors.RegistryUnavailable(f"The registry at {url} refuses: {error}")


def _pieces(values: Collection[Any]) -> Sequence[Sequence[Any]]:
    listed = list(values)
    return [listed[start : start + _AT_ONCE] for start in range(0, len(listed), _AT_ONCE)]
