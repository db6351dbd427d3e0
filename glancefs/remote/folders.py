# SPDX-License-Identifier: Apache-2.0
"""The use cases of folders, of the change feed and of locks at a distance.

Answers for `glancefs.tree.ports.TreeFolders`, and for what a mount needs of `TreeLocks`. The server knows who asks, so
of a context only the lock tokens count.

Threading: thread-safe, as the connection is; one thread follows the feed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, GlancefsError, Unavailable
from glancefs.model import Image
from glancefs.registries.base import POLLED, Changes
from glancefs.registries.folders import Folder, FolderPage, Found, OutlinePage
from glancefs.registries.locks import Lock, Touched
from glancefs.remote.calls import LONGEST_WAIT, MOST_CHANGES
from glancefs.remote.connection import ServerConnection
from glancefs.remote.memory import Remembered

_AT_ONCE: Final = 1000
"""How many identifiers are asked about in one call."""

_NOBODY: Final = RequestContext()


class RemoteFolders:
    """The folders of a server."""

    def __init__(self, *, server: ServerConnection) -> None:
        self._server: Final = server
        self._since = 0
        self._news: tuple[int, Changes] | None = None
        """What came while the feed was waited for, and after which revision."""
        self._remembered: Final = Remembered()

    # ---- looking

    def images_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> FolderPage:
        """See `Folders.images_in`."""
        page: FolderPage = self._server.call("folders/images_in", context, path=path, after=after, limit=limit)
        return page

    def outlines_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> OutlinePage:
        """See `Folders.outlines_in`."""
        page: OutlinePage = self._server.call("folders/outlines_in", context, path=path, after=after, limit=limit)
        return page

    def folders_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> Sequence[Folder]:
        """See `Folders.folders_in`."""
        page: Sequence[Folder] = self._server.call("folders/folders_in", context, path=path, after=after, limit=limit)
        return page

    def get(self, context: RequestContext, path: str) -> Folder:
        """See `Folders.get`."""
        folder: Folder = self._server.call("folders/get", context, path=path)
        return folder

    def first_named(self, context: RequestContext, name: str) -> Image | None:
        """See `Folders.first_named`."""
        image: Image | None = self._server.call("folders/first_named", context, name=name)
        return image

    def at(self, context: RequestContext, name: str) -> Found:
        """See `Folders.at`. While the server is away, what it said last holds on; what it never said is an error."""
        known = self._remembered.recall(name)
        if known is not None and self._server.is_away:
            return known
        try:
            found: Found = self._server.call("folders/at", context, name=name)
        except Unavailable:
            if known is None:
                raise
            return known
        self._remembered.note(name, found)
        return found

    def first_of_their_names(self, context: RequestContext, image_ids: Collection[str]) -> Collection[str]:
        """See `Folders.first_of_their_names`."""
        listed = list(image_ids)
        first: set[str] = set()
        for start in range(0, len(listed), _AT_ONCE):
            piece = listed[start : start + _AT_ONCE]
            first.update(self._server.call("folders/first_of_their_names", context, image_ids=piece))
        return first

    # ---- changing

    def make(self, context: RequestContext, path: str) -> Folder:
        """See `Folders.make`."""
        folder: Folder = self._server.call("folders/make", context, path=path)
        return folder

    def keep(self, context: RequestContext, path: str) -> None:
        """See `Folders.keep`."""
        self._server.call("folders/keep", context, path=path)

    def remove(self, context: RequestContext, path: str) -> None:
        """See `Folders.remove`."""
        self._server.call("folders/remove", context, path=path)

    def move(self, context: RequestContext, old: str, new: str) -> int:
        """See `Folders.move`."""
        moved: int = self._server.call("folders/move", context, old=old, new=new)
        return moved

    def set_mtime(self, context: RequestContext, path: str, mtime_ns: int) -> Folder:
        """See `Folders.set_mtime`."""
        folder: Folder = self._server.call("folders/set_mtime", context, path=path, mtime_ns=mtime_ns)
        return folder

    # ---- others' changes

    @property
    def tells_of_changes(self) -> bool:
        """See `Folders.tells_of_changes`: the server answers as soon as there is one."""
        return True

    def wait_for_change(self, seconds: float) -> None:
        """See `Folders.wait_for_change`. A server that does not answer is waited for too; `changes` tells of it."""
        began, since = time.monotonic(), self._since
        pause = min(seconds, POLLED)
        try:
            wait = min(LONGEST_WAIT, max(1, math.ceil(seconds)))
            news = self._server.changes(since, wait=wait, limit=MOST_CHANGES)
        except GlancefsError:
            time.sleep(pause)
            return
        if news.revision != since:
            self._news = since, news
            return
        # One that can't wait is asked now and then.
        time.sleep(max(0.0, pause - (time.monotonic() - began)))

    def revision(self) -> int:
        """See `Folders.revision`."""
        revision: int = self._server.call("folders/revision", _NOBODY)
        self._since = revision
        return revision

    def changes(self, since: int, *, limit: int = 1000) -> Changes:
        """Give what changed after a revision; of what is not the caller's to see, that it is gone."""
        news, self._news = self._news, None
        if news is None or news[0] != since or limit < MOST_CHANGES:
            changes = self._server.changes(since, limit=min(limit, MOST_CHANGES))
        else:
            changes = news[1]
        self._remembered.forget(changes)
        self._since = changes.revision
        return changes


class RemoteLocks:
    """What a mount asks of the locks of a server; it takes none itself."""

    def __init__(self, *, server: ServerConnection) -> None:
        self._server: Final = server

    def check(self, context: RequestContext, touched: Collection[Touched]) -> bool:
        """See `Locks.check`."""
        has_locks: bool = self._server.call("locks/check", context, touched=touched)
        return has_locks

    def forget(self, context: RequestContext, path: str, *, guarding: str | None) -> None:
        """See `Locks.forget`."""
        self._server.call("locks/forget", context, path=path, guarding=guarding)

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
        """Raise Forbidden: locks are taken over WebDAV."""
        del context, guards, is_shared, is_deep, owner_xml, seconds
        raise _no_locks(path)

    def refresh(self, context: RequestContext, token: str, *, seconds: int | None = None) -> Lock:
        """Raise Forbidden, as `acquire` does."""
        del context, seconds
        raise _no_locks(token)

    def release(self, context: RequestContext, token: str) -> Lock:
        """Raise Forbidden, as `acquire` does."""
        del context
        raise _no_locks(token)

    def covering(self, path: str, *, guarding: str | None) -> Sequence[Lock]:
        """Raise Forbidden: the locks of others are not told."""
        del guarding
        raise _no_locks(path)

    def below(self, path: str, *, guarding: str | None) -> Sequence[Lock]:
        """Raise Forbidden, as `covering` does."""
        del guarding
        raise _no_locks(path)


def _no_locks(what: str) -> Forbidden:
    return Forbidden(f"Locks such as that of {what!r} are held and shown by WebDAV alone.")
