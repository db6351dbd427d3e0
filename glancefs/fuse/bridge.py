# SPDX-License-Identifier: Apache-2.0
"""The one crossing from the event loop to the core, which blocks: threads in two lanes, a deadline on every wait.

Answers for three promises. Nobody waits without end: a look that takes too long is given up, a change that takes too
long is answered with an error. A change is never abandoned: once begun it runs to its end, whatever became of who asked
for it, and leaving the bridge waits for all of them. Looks at metadata never queue behind data on their way.

Does not know what it carries, nor any errno.

Threading: the bridge belongs to the loop's thread; what it carries runs in threads of its own.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar, TypeVarTuple, cast

import trio

from glancefs.fuse.statistics import Statistics

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_METADATA_THREADS: Final = 8
_DATA_THREADS: Final = 32
"""As many as programs that may wait for a commit at once: commits of many share one sync of the registry."""

_WAITING_THREADS: Final = 32
"""As many as users whose views each wait for others' changes; more take turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """For how many seconds who asked waits."""

    look: float = 30.0
    change: float = 60.0
    slowest_data: float = 2 * 1024 * 1024
    """Bytes per second: what a commit of so many bytes may take is added to the deadline of a change.

    A commit into a store on other machines carries all bytes there.
    """

    def commit(self, size: int) -> float:
        """How long making an image of so many bytes may take."""
        return self.change + size / self.slowest_data


@dataclass(slots=True)
class _Outcome(Generic[T]):
    """What became of a change."""

    done: trio.Event = field(default_factory=trio.Event)
    value: T | None = None
    error: BaseException | None = None
    is_awaited: bool = True


class Bridge:
    """Made by `open_bridge`."""

    def __init__(self, *, nursery: trio.Nursery, deadlines: Deadlines, statistics: Statistics) -> None:
        self.deadlines: Final = deadlines
        self._nursery: Final = nursery
        self._statistics: Final = statistics
        self._metadata: Final = trio.CapacityLimiter(_METADATA_THREADS)
        self._data: Final = trio.CapacityLimiter(_DATA_THREADS)
        self._notices: Final = trio.CapacityLimiter(1)
        self._waits: Final = trio.CapacityLimiter(_WAITING_THREADS)

    async def look(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Ask for metadata. Raises what the work raises, and TooSlowError."""
        return await self._look(self._metadata, partial(work, *args))

    async def read(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Ask for data. Raises what the work raises, and TooSlowError."""
        return await self._look(self._data, partial(work, *args))

    async def change(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Change metadata; whoever gives up waiting, the change goes on. Raises as `look` does."""
        return await self._change(self._metadata, partial(work, *args), self.deadlines.change)

    async def write(self, work: Callable[[*Ts], T], *args: *Ts, size: int = 0) -> T:
        """Change data, or commit ``size`` bytes of them. Raises as `change` does."""
        return await self._change(self._data, partial(work, *args), self.deadlines.commit(size))

    async def wait(self, work: Callable[[float], None], seconds: float) -> None:
        """Do what takes so many seconds at the most, in a lane of its own. Raises what the work raises."""
        await trio.to_thread.run_sync(work, seconds, limiter=self._waits, abandon_on_cancel=True)

    async def notify(self, work: Callable[[], None]) -> None:
        """Tell the kernel something, which may wait for a request that waits for us. Raises TooSlowError."""
        await self._look(self._notices, work)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin something of our own that leaving the bridge waits for; it must not raise."""
        self._nursery.start_soon(work)

    async def _look(self, lane: trio.CapacityLimiter, work: Callable[[], T]) -> T:
        self._statistics.hops += 1
        with trio.fail_after(self.deadlines.look):
            return await trio.to_thread.run_sync(work, limiter=lane, abandon_on_cancel=True)

    async def _change(self, lane: trio.CapacityLimiter, work: Callable[[], T], deadline: float) -> T:
        self._statistics.hops += 1
        outcome = _Outcome[T]()
        self._nursery.start_soon(_carry, lane, work, outcome)
        try:
            with trio.fail_after(deadline):
                await outcome.done.wait()
        except BaseException:
            outcome.is_awaited = False
            raise
        if outcome.error is not None:
            raise outcome.error
        return cast("T", outcome.value)


async def _carry(lane: trio.CapacityLimiter, work: Callable[[], T], outcome: _Outcome[T]) -> None:
    with trio.CancelScope(shield=True):
        try:
            outcome.value = await trio.to_thread.run_sync(work, limiter=lane)
        except Exception as error:  # noqa: BLE001 - handed to who asked, or logged for the operator below
            outcome.error = error
            if not outcome.is_awaited:
                _log.warning("a change that nobody waited for any longer has failed: %s", error)
        outcome.done.set()


@asynccontextmanager
async def open_bridge(*, statistics: Statistics, deadlines: Deadlines | None = None) -> AsyncIterator[Bridge]:
    """Open the bridge; leaving it waits until every change that was begun has ended."""
    async with trio.open_nursery() as nursery:
        yield Bridge(nursery=nursery, deadlines=deadlines or Deadlines(), statistics=statistics)
