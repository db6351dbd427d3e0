# SPDX-License-Identifier: Apache-2.0
"""Open folders: their entries page by page, however many there are.

Answers for handing out each entry once, in a stable order while a folder is open, with few crossings to a thread and a
few thousand entries in memory at most. Does not know which entries there are.

Threading: belongs to the loop's thread; pages are fetched in threads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

import trio

from glancefs.errors import GlancefsError
from glancefs.fuse.bridge import Bridge
from glancefs.tree import Entry, EntryKind, ImageTree, Listed

_PAGE: Final = 1000
_KEPT: Final = 2
"""In pages: the kernel asks again for the entries that did not fit its reader's buffer."""


Prepare = Callable[[Iterable[str | None]], None]
"""Finds out, in a thread, what attributes of images of these owners take."""


class FolderHandle:
    """An open folder."""

    def __init__(self, *, tree: ImageTree, bridge: Bridge, path: str, prepare: Prepare) -> None:
        """``prepare`` is called in a thread with the owners of the images that are to be handed out."""
        self.path: Final = path
        self._tree: Final = tree
        self._bridge: Final = bridge
        self._prepare: Final = prepare
        self._turn: Final = trio.Lock()
        self._pages: Iterator[Sequence[Listed]] | None = None
        self._following: _Following | None = None
        self._kept: list[Sequence[Listed]] = []
        self._first = 0
        """The place of the first entry that is kept."""
        self._is_complete = False

    async def at(self, place: int) -> Sequence[Listed]:
        """Give the entries from a place on, as many as are at hand and at least one; none at the end."""
        async with self._turn:
            if place == 0 or place < self._first:
                self._rewind()
            while not self._is_complete and place >= self._stop:
                await self._fetch()
            start = place - self._first
            for page in self._kept:
                if start < len(page):
                    return page[start:]
                start -= len(page)
            return ()

    def is_at_hand(self, place: int) -> bool:
        """Whether `at` could give the entries from a place on without waiting."""
        return not self._is_complete and self._first <= place and (place < self._stop or self._is_fetched)

    @property
    def _is_fetched(self) -> bool:
        return self._following is not None and self._following.is_done

    @property
    def _stop(self) -> int:
        return self._first + sum(map(len, self._kept))

    def _rewind(self) -> None:
        self._pages = None
        self._following = None
        self._kept = []
        self._first = 0
        self._is_complete = False

    async def _fetch(self) -> None:
        if self._pages is None:
            self._pages = self._tree.list_briefly(self.path, page_size=_PAGE)
        following, self._following = self._following or self._begin(self._pages), None
        page = await following.get()
        if page is None:
            self._is_complete = True
            return
        if page:
            # On its way while the kernel and the reader are at this one.
            self._following = self._begin(self._pages)
        if len(self._kept) >= _KEPT:
            self._first += len(self._kept.pop(0))
        self._kept.append(page)

    def _begin(self, pages: Iterator[Sequence[Listed]]) -> _Following:
        following = _Following(work=partial(self._bridge.look, _page, pages, self._prepare))
        self._bridge.start(following.run)
        return following


class _Following:
    """A page that is being fetched, whether anybody will ask for it or not."""

    def __init__(self, *, work: Callable[[], Awaitable[Sequence[Listed] | None]]) -> None:
        self._work: Final = work
        self._done: Final = trio.Event()
        self._page: Sequence[Listed] | None = None
        self._error: Exception | None = None

    async def run(self) -> None:
        """Fetch it."""
        try:
            self._page = await self._work()
        except Exception as error:  # noqa: BLE001 - raised again to whoever asks for the page
            self._error = error
        self._done.set()

    @property
    def is_done(self) -> bool:
        """Whether `get` would not wait."""
        return self._done.is_set()

    async def get(self) -> Sequence[Listed] | None:
        """Give the page, or None behind the last one. Raises what fetching it raised."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._page


def _page(pages: Iterator[Sequence[Listed]], prepare: Prepare) -> Sequence[Listed] | None:
    page = next(pages, None)
    if page is not None:
        prepare(listed.owner for listed in page)
    return page


def looked_up(tree: ImageTree, path: str, prepare: Prepare) -> tuple[Entry, int]:
    """Give what is at a path, and the bytes that it takes on disk. Raises as `ImageTree.lookup` does."""
    entry = tree.lookup(path)
    if entry.image is not None:
        prepare([entry.image.owner])
    return entry, allocated(tree, entry)


def allocated(tree: ImageTree, entry: Entry) -> int:
    """Give the bytes that an entry takes on disk; its size, where the store can't say."""
    if entry.kind is EntryKind.IMAGE:
        try:
            return tree.allocated(entry)
        except GlancefsError:
            return entry.size
    return 0 if entry.kind is EntryKind.QUEUED else entry.size
