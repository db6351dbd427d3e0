# SPDX-License-Identifier: Apache-2.0
"""The crossing between the loop and the core: lanes, deadlines, and changes that nobody abandons."""

import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from glancefs.fuse.bridge import Bridge, Deadlines, open_bridge
from glancefs.fuse.statistics import Statistics


def crossing(work: Callable[[Bridge], Awaitable[None]], **deadlines: float) -> None:
    async def main() -> None:
        async with open_bridge(statistics=Statistics(), deadlines=Deadlines(**deadlines)) as bridge:
            await work(bridge)

    trio.run(main)


def test_a_look_that_takes_too_long_is_given_up() -> None:
    release = threading.Event()

    async def work(bridge: Bridge) -> None:
        with pytest.raises(trio.TooSlowError):
            await bridge.look(release.wait)
        release.set()

    crossing(work, look=0.05)


def test_a_change_that_takes_too_long_is_answered_and_goes_on() -> None:
    release = threading.Event()
    done: list[bool] = []

    async def work(bridge: Bridge) -> None:
        with pytest.raises(trio.TooSlowError):
            await bridge.change(lambda: done.append(release.wait(30)))
        assert done == []
        release.set()

    crossing(work, change=0.05)
    assert done == [True]


def test_a_change_goes_on_when_who_asked_is_cancelled() -> None:
    release = threading.Event()
    done: list[bool] = []

    async def work(bridge: Bridge) -> None:
        with trio.move_on_after(0.05):
            await bridge.write(lambda: done.append(release.wait(30)))
        release.set()

    crossing(work)
    assert done == [True]


@pytest.mark.expect_log("nobody waited for any longer has failed: lost")
def test_the_failure_of_a_change_that_nobody_waits_for_is_logged() -> None:
    release = threading.Event()

    def fail() -> None:
        release.wait(30)
        raise OSError("lost")

    async def work(bridge: Bridge) -> None:
        with pytest.raises(trio.TooSlowError):
            await bridge.change(fail)
        release.set()

    crossing(work, change=0.05)
    assert release.is_set()


def test_who_asks_gets_what_the_work_gives_or_raises() -> None:
    async def work(bridge: Bridge) -> None:
        assert await bridge.look(int, "5") == 5
        assert await bridge.change(int, "6") == 6
        with pytest.raises(ValueError, match="invalid literal"):
            await bridge.write(int, "seven")

    crossing(work)


def test_metadata_never_wait_for_data() -> None:
    release = threading.Event()

    async def work(bridge: Bridge) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(lambda: bridge.read(release.wait))
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.fail_after(20):
                assert await bridge.look(int, "5") == 5
            release.set()

    crossing(work)


def test_a_large_commit_has_longer() -> None:
    deadlines = Deadlines(change=60, slowest_data=100)
    assert deadlines.commit(0) == 60
    assert deadlines.commit(1000) == 70
