# SPDX-License-Identifier: Apache-2.0
"""Opening what is being replaced: the requests that Linux sends, in the order in which others come between them."""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path

import pyfuse3
import pytest
import trio

from glancefs.context import RequestContext
from glancefs.folders import Folders
from glancefs.fuse.attributes import Appearance
from glancefs.fuse.bridge import open_bridge
from glancefs.fuse.notices import Kernel
from glancefs.fuse.operations import Operations
from glancefs.fuse.options import MountOptions
from glancefs.fuse.passthrough import Passthrough
from glancefs.fuse.priority import Pace
from glancefs.fuse.receiving import Receiving
from glancefs.fuse.replies import Replies
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.views import Shared, open_view
from glancefs.registries.folders import Found
from tests.support.trees import Core, put

ROOT = 1
WHO = pyfuse3.RequestContext()


@asynccontextmanager
async def requests(core: Core) -> AsyncIterator[Operations]:
    """What answers the kernel, without one."""
    statistics, pace = Statistics(), Pace()
    async with open_bridge(statistics=statistics) as bridge:
        shared = Shared(
            bridge=bridge,
            kernel=Kernel(),
            passthrough=Passthrough(replies=Replies(), is_wanted=False),
            receiving=Receiving(),
            pace=pace,
            options=MountOptions(),
            appearance=Appearance(uid=0, gid=0),
        )
        view = await open_view(core.tree(), shared, statistics=statistics, numbers=count(1))
        yield view.operations
        await view.finish()
    pace.cores.part()


@contextmanager
def stale() -> Iterator[None]:
    with pytest.raises(pyfuse3.FUSEError) as refused:
        yield
    assert refused.value.errno == errno.ESTALE


def with_requests(core: Core, work: Callable[[Operations], Awaitable[None]]) -> None:
    async def main() -> None:
        async with requests(core) as asked:
            await work(asked)

    trio.run(main)


async def content(asked: Operations, ino: int) -> bytes:
    opened = await asked.open(ino, os.O_RDONLY, WHO)
    data = bytes(await asked.read(opened.fh, 0, 100))
    await asked.release(opened.fh)
    return data


async def found(asked: Operations, name: bytes = b"a") -> int:
    return (await asked.lookup(ROOT, name, WHO)).st_ino


def open_files(core: Core) -> int:
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found += descriptor.readlink().is_relative_to(core.folder / "file")
    return found


def test_who_met_with_a_replacement_meets_with_no_second_one(core: Core) -> None:
    other = core.tree()
    put(other, "a", b"first")

    async def work(asked: Operations) -> None:
        first = await found(asked)
        put(other, "a", b"second")
        with stale():
            await content(asked, first)
        second = await found(asked)
        put(other, "a", b"third")
        assert await content(asked, second) == b"second"
        # It is held for one open alone.
        with stale():
            await content(asked, second)
        assert await content(asked, await found(asked)) == b"third"

    with_requests(core, work)


def test_what_is_found_at_the_latest_look_is_what_is_opened(core: Core) -> None:
    other = core.tree()
    put(other, "a", b"first")

    async def work(asked: Operations) -> None:
        first = await found(asked)
        put(other, "a", b"second")
        with stale():
            await content(asked, first)
        second = await found(asked)
        put(other, "a", b"third")
        third = await found(asked)
        assert third != second
        put(other, "a", b"fourth")
        assert await content(asked, third) == b"third"

    with_requests(core, work)


def test_who_was_told_to_look_again_may_find_nothing_or_open_something_else(core: Core) -> None:
    other = core.tree()
    put(other, "a", b"first")
    put(other, "b", b"beside")

    async def work(asked: Operations) -> None:
        first, beside = await found(asked), await found(asked, b"b")
        other.remove("a")
        with stale():
            await content(asked, first)
        assert await found(asked) == 0
        put(other, "a", b"second")
        second = await found(asked)
        assert await content(asked, beside) == b"beside"
        assert await content(asked, second) == b"second"

    with_requests(core, work)


def test_what_nobody_comes_for_is_let_go_of(core: Core) -> None:
    other = core.tree()
    put(other, "a", b"first")
    held: list[int] = []

    async def work(asked: Operations) -> None:
        first = await found(asked)
        put(other, "a", b"second")
        before = open_files(core)
        with stale():
            await content(asked, first)
        await found(asked)
        held.append(open_files(core) - before)
        await found(asked)
        held.append(open_files(core) - before)

    before = open_files(core)
    with_requests(core, work)
    assert held == [1, 1]
    assert open_files(core) == before


def test_a_file_is_made_without_a_look_where_the_kernel_was_just_told_that_nothing_is(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While changes are being followed, what the kernel was told holds until one comes; otherwise it does not."""
    looked: list[str] = []
    look = Folders.at

    def at(folders: Folders, context: RequestContext, name: str) -> Found:
        looked.append(name)
        return look(folders, context, name)

    monkeypatch.setattr(Folders, "at", at)

    async def work(asked: Operations) -> None:
        watcher = asked._watcher

        async def make(name: bytes) -> None:
            opened, _ = await asked.create(ROOT, name, 0o644, os.O_WRONLY | os.O_CREAT, WHO)
            await asked.release(opened.fh)

        await asked.lookup(ROOT, b"unfollowed", WHO)
        await make(b"unfollowed")
        watcher._looked_at = trio.current_time()
        await asked.lookup(ROOT, b"told", WHO)
        await make(b"told")
        await make(b"untold")
        await asked.lookup(ROOT, b"theirs", WHO)
        put(core.tree(), "theirs", b"theirs")
        await watcher._follow(0)
        with pytest.raises(pyfuse3.FUSEError) as refused:
            await asked.create(ROOT, b"theirs", 0o644, os.O_WRONLY | os.O_CREAT | os.O_EXCL, WHO)
        assert refused.value.errno == errno.EEXIST

    with_requests(core, work)
    counts = {name: looked.count(name) for name in ("unfollowed", "told", "untold")}
    assert counts == {"unfollowed": 2, "told": 1, "untold": 1}
