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
