# SPDX-License-Identifier: Apache-2.0
"""One mount, seen by several users: each request of the kernel goes to the view of the one who makes it.

A view is a whole mount in itself, its tree, inodes and open files; views share the kernel, which has one cache of names
and one inode for each number. So three walls stand between two users:

- No name is remembered by the kernel (`OwnAppearance`), so each walk along a path comes here, as the one who walks.
- A number that a user was never told of means nothing in their view: ESTALE, whatever the kernel has found by it.
- What is private is its owner's, with a mode that lets nobody else in, which the kernel checks at each open.

What somebody has open stays open for whoever is handed the descriptor, as everywhere.

Answers for finding the view, for making it when its user first asks, and for counting what the kernel holds over all of
them. What a view answers, `glancefs.fuse.operations` says.

Threading: belongs to the loop's thread; views are made in threads.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FUSEError, RequestContext, SetattrFields

from glancefs.fuse.attributes import Appearance, OwnAppearance
from glancefs.fuse.bridge import Bridge
from glancefs.fuse.changes import Watcher
from glancefs.fuse.files import OpenFiles
from glancefs.fuse.guard import guarded
from glancefs.fuse.inodes import Inodes
from glancefs.fuse.notices import Kernel
from glancefs.fuse.operations import Operations
from glancefs.fuse.options import MountOptions
from glancefs.fuse.passthrough import Passthrough
from glancefs.fuse.priority import Pace
from glancefs.fuse.publishing import Publisher
from glancefs.fuse.receiving import Receiving
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.users import Users
from glancefs.tree import ImageTree

_log = logging.getLogger(__name__)

MakeTree = Callable[[Any, Statistics], ImageTree]
"""Makes the tree of a `glancefs.context.RequestContext`, whose ``.glance/stats`` are these; may wait."""

_VIEWS: Final = 1 << 20
"""How many views there can be: the number of a handle says which one it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The mount as one user has it."""

    tree: ImageTree
    inodes: Inodes
    watcher: Watcher
    operations: Operations

    async def watch(self) -> None:
        """Follow others' changes until cancelled."""
        await self.watcher.run()

    async def finish(self) -> None:
        """Close everything, as at the end of the mount."""
        await self.operations.files.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePerUser:
    """What the views of several users are made from."""

    users: Users
    make_tree: MakeTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the views of one mount have in common."""

    bridge: Bridge
    kernel: Kernel
    passthrough: Passthrough
    receiving: Receiving
    pace: Pace
    options: MountOptions
    appearance: Appearance


async def open_view(tree: ImageTree, shared: Shared, *, statistics: Statistics, numbers: Iterator[int]) -> View:
    """Make a view of a tree; ``numbers`` are those of its handles."""
    bridge, kernel = shared.bridge, shared.kernel
    inodes = Inodes(statistics=statistics)
    inodes.refresh(inodes.root, await bridge.look(tree.lookup, ""), allocated=0)
    await bridge.look(tree.rehearse)
    publisher = Publisher(
        tree=tree,
        bridge=bridge,
        inodes=inodes,
        kernel=kernel,
        statistics=statistics,
        settle_after=shared.options.settle,
    )
    watcher = Watcher(tree=tree, bridge=bridge, inodes=inodes, kernel=kernel, statistics=statistics)
    files = OpenFiles(
        tree=tree,
        bridge=bridge,
        inodes=inodes,
        publisher=publisher,
        passthrough=shared.passthrough,
        receiving=shared.receiving,
        pace=shared.pace,
        statistics=statistics,
        numbers=numbers,
    )
    operations = Operations(
        tree=tree,
        bridge=bridge,
        inodes=inodes,
        files=files,
        publisher=publisher,
        watcher=watcher,
        appearance=shared.appearance,
        statistics=statistics,
        numbers=numbers,
        read_only=shared.options.read_only,
    )
    return View(tree=tree, inodes=inodes, watcher=watcher, operations=operations)


class Views(pyfuse3.Operations):
    """The views of one mount."""

    supports_dot_lookup = Operations.supports_dot_lookup
    enable_writeback_cache = Operations.enable_writeback_cache
    enable_acl = Operations.enable_acl

    def __init__(self, trees: TreePerUser, shared: Shared, *, statistics: Statistics) -> None:
        super().__init__()
        self.greeted: Final = trio.Event()
        """Set once the kernel has been answered for the first time."""
        self.statistics = Statistics()
        """What the guard counts here; each view counts for itself."""
        self._first: Final = statistics
        self._users: Final = trees.users
        self._make_tree: Final = trees.make_tree
        self._shared: Final = shared
        self._bridge: Final = shared.bridge
        self._by_user: Final[dict[str | None, View]] = {}
        self._views: Final[list[View]] = []
        self._making: Final = trio.Lock()
        self._forgotten: Final[Counter[int]] = Counter()
        self._starting, self._started = trio.open_memory_channel[View](_VIEWS)

    def report(self, request: str, about: object, error: BaseException) -> None:
        """Tell in the log why no view could be asked."""
        _log.warning("%s (%s): %s", request, about, error)

    def init(self) -> None:
        """Take note that the kernel is being answered."""
        self.greeted.set()

    @property
    def operations(self) -> Views:
        """What answers the kernel."""
        return self

    async def begin(self) -> None:
        """Make the view of who mounts."""
        await self.of(os.getuid())

    async def watch(self) -> None:
        """Follow others' changes in all views until cancelled."""
        async with trio.open_nursery() as nursery:
            async for view in self._started:
                nursery.start_soon(view.watcher.run)

    async def finish(self) -> None:
        """Close everything, as at the end of the mount."""
        for view in self._views:
            await view.finish()
            await self._bridge.change(view.tree.close)

    async def of(self, uid: int) -> View:
        """Give the view of who has this number."""
        context = self._users.known(uid)
        if context is None:
            context = await self._bridge.look(self._users.context_of, uid)
        view = self._by_user.get(context.user)
        if view is None:
            async with self._making:
                view = self._by_user.get(context.user) or await self._make(context)
        return view

    async def _make(self, context: Any) -> View:  # noqa: ANN401 - that of glancefs.context; pyfuse3 has one of that name
        is_first = not self._views
        statistics = self._first if is_first else Statistics()
        tree = await self._bridge.change(self._make_tree, context, statistics)
        await self._bridge.look(self._users.learn, context.user)
        said = self._shared.appearance
        appearance = OwnAppearance(
            uid=said.uid,
            gid=said.gid,
            umask=said.umask,
            attr_timeout=said.attr_timeout,
            entry_timeout=0,
            users=self._users,
            me=self._users.ids_of(context.user),
        )
        view = await open_view(
            tree,
            replace(self._shared, appearance=appearance),
            statistics=statistics,
            numbers=count(len(self._views) + _VIEWS, _VIEWS),
        )
        if not is_first:
            self._first.others.append(statistics)
        self._views.append(view)
        self._by_user[context.user] = view
        self._starting.send_nowait(view)
        return view

    def of_handle(self, number: int) -> View:
        """Give the view to which a handle belongs, whoever uses it."""
        return self._views[number % _VIEWS]

    @guarded
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Free what the kernel has forgotten of what it was told, by all views together."""
        for ino, lookups in inode_list:
            self._forgotten[ino] += lookups
            holders = [(view, known) for view in self._views if (known := view.inodes.get(ino)) is not None]
            told = {view.operations: known.lookups for view, known in holders}
            # Which user's it was, the kernel does not know either: none is freed while it holds any.
            if self._forgotten[ino] < sum(told.values()):
                continue
            del self._forgotten[ino]
            for operations, held in told.items():
                await operations.forget([(ino, held)])

    @guarded
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Give the attributes, also of a file that another user has open: its descriptor may have been handed on."""
        view = await self.of(ctx.uid)
        if view.inodes.get(inode) is None:
            for other in self._views:
                known = other.inodes.get(inode)
                if known is not None and known.uses:
                    return await other.operations.getattr(inode, ctx)
        return await view.operations.getattr(inode, ctx)

    @guarded
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Change size or times; through a descriptor, in the view of who opened it."""
        view = await self.of(ctx.uid) if fh is None else self.of_handle(fh)
        return await view.operations.setattr(inode, attr, fields, fh, ctx)


_Handler = Callable[..., Coroutine[Any, Any, Any]]


def _by_caller(name: str) -> _Handler:
    async def answer(self: Views, *arguments: Any) -> Any:  # noqa: ANN401 - handed on
        # pyfuse3 says last who asks.
        view = await self.of(arguments[-1].uid)
        asked: Awaitable[Any] = getattr(view.operations, name)(*arguments)
        return await asked

    return _named(answer, name)


def _by_handle(name: str) -> _Handler:
    async def answer(self: Views, number: int, *arguments: Any) -> Any:  # noqa: ANN401 - handed on
        try:
            view = self.of_handle(number)
        except IndexError:
            raise FUSEError(errno.EBADF) from None
        asked: Awaitable[Any] = getattr(view.operations, name)(number, *arguments)
        return await asked

    return _named(answer, name)


def _named(answer: _Handler, name: str) -> _Handler:
    answer.__name__ = name
    return guarded(answer)


_OF_CALLERS: Final = (
    *("lookup", "mkdir", "unlink", "rmdir", "rename", "link", "symlink", "mknod", "readlink", "access"),
    *("statfs", "getxattr", "listxattr", "setxattr", "removexattr", "opendir", "open", "create", "poll"),
)
_OF_HANDLES: Final = ("readdir", "releasedir", "fsyncdir", "read", "write", "flush", "release", "fsync")

for _name in _OF_CALLERS:
    setattr(Views, _name, _by_caller(_name))
for _name in _OF_HANDLES:
    setattr(Views, _name, _by_handle(_name))
