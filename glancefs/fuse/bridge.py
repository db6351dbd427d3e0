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
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar, TypeVarTuple, cast

import trio

from glancefs.cores import Cores
from glancefs.fuse.statistics import Statistics

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_METADATA_THREADS: Final = 8
_DATA_THREADS: Final = 32
"""As many as programs that may wait for a commit at once: commits of many share one sync of the registry."""

_WAITING_THREADS: Final = 32
"""As many as users whose views each wait for others' changes; more take turns."""


_LONG: Final = 1 << 20
"""From how many bytes on it is the data that take the time."""


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


class _Job(Generic[T]):
    """Something on its way through a lane."""

    __slots__ = ("asker", "error", "is_brief", "is_change", "value", "work")

    def __init__(self, work: Callable[[], T], *, is_change: bool, is_brief: bool) -> None:
        self.work: Final = work
        self.is_change: Final = is_change
        self.is_brief: Final = is_brief
        """Whether it is more of Python than of data."""
        self.asker: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        """Who waits for the outcome, if anybody does."""
        self.value: T | None = None
        self.error: BaseException | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be done at all: a change always is, a look as long as somebody waits for it."""
        return self.is_change or self.asker is not None

    async def outcome(self) -> T:
        """Wait for the end, and give what the work gave, or raise what it raised; who is cancelled waits no longer."""

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            self.asker = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class _Changes:
    """How many changes are under way."""

    def __init__(self) -> None:
        self._number = 0
        self._none: trio.Event = trio.Event()

    def count(self, more: int) -> None:
        """Count one that has begun, or (-1) ended."""
        self._number += more
        if not self._number:
            self._none.set()

    async def ended(self) -> None:
        """Wait until there are none."""
        while self._number:
            self._none = trio.Event()
            await self._none.wait()


class _Lane:
    """Threads for one kind of work, so many at the most.

    trio's own way to a thread prepares every crossing for what is never needed here, and gives the thread a name each
    time; that took a third of what a crossing costs.
    """

    def __init__(self, *, threads: int, changes: _Changes, cores: Cores) -> None:
        self._cores: Final = cores
        self._token: Final = trio.lowlevel.current_trio_token()
        self._changes: Final = changes
        self._free = threads
        self._waiting: Final[deque[_Job[Any]]] = deque()

    def begin(self, job: _Job[Any]) -> None:
        """Start a job, or have it wait for a thread."""
        if self._free:
            self._free -= 1
            self._start(job)
        else:
            self._waiting.append(job)

    def _start(self, job: _Job[Any]) -> None:
        def carry() -> None:
            self._cores.enter(is_brief=job.is_brief)
            try:
                job.value = job.work()
            except BaseException as error:  # noqa: BLE001 - handed to who asked, or logged for the operator
                job.error = error

        def deliver(_: object) -> None:
            # The loop does not wait for looks that were given up.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._arrived, job)

        trio.lowlevel.start_thread_soon(carry, deliver)

    def _arrived(self, job: _Job[Any]) -> None:
        self._free += 1
        while self._waiting and self._free:
            waiting = self._waiting.popleft()
            if waiting.is_wanted:
                self._free -= 1
                self._start(waiting)
        if job.asker is not None:
            trio.lowlevel.reschedule(job.asker)
        elif job.is_change and job.error is not None:
            _log.warning("a change that nobody waited for any longer has failed: %s", job.error)
        if job.is_change:
            self._changes.count(-1)


class Bridge:
    """Made by `open_bridge`."""

    def __init__(
        self, *, nursery: trio.Nursery, changes: _Changes, deadlines: Deadlines, statistics: Statistics, cores: Cores
    ) -> None:
        self.deadlines: Final = deadlines
        self._nursery: Final = nursery
        self._statistics: Final = statistics
        self._changes: Final = changes
        self._metadata: Final = _Lane(threads=_METADATA_THREADS, changes=changes, cores=cores)
        self._data: Final = _Lane(threads=_DATA_THREADS, changes=changes, cores=cores)
        self._notices: Final = _Lane(threads=1, changes=changes, cores=cores)
        self._waits: Final = trio.CapacityLimiter(_WAITING_THREADS)

    async def look(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Ask for metadata. Raises what the work raises, and TooSlowError."""
        return await self._look(self._metadata, partial(work, *args))

    async def read(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Ask for data. Raises what the work raises, and TooSlowError."""
        return await self._look(self._data, partial(work, *args), is_brief=False)

    async def change(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Change metadata; whoever gives up waiting, the change goes on. Raises as `look` does."""
        return await self._change(self._metadata, partial(work, *args), self.deadlines.change)

    async def write(self, work: Callable[[*Ts], T], *args: *Ts, size: int = 0) -> T:
        """Change data, or commit ``size`` bytes of them. Raises as `change` does."""
        deadline = self.deadlines.commit(size)
        return await self._change(self._data, partial(work, *args), deadline, is_brief=size < _LONG)

    async def wait(self, work: Callable[[float], None], seconds: float) -> None:
        """Do what takes so many seconds at the most, in a lane of its own. Raises what the work raises."""
        await trio.to_thread.run_sync(work, seconds, limiter=self._waits, abandon_on_cancel=True)

    async def notify(self, work: Callable[[], None]) -> None:
        """Tell the kernel something, which may wait for a request that waits for us. Raises TooSlowError."""
        await self._look(self._notices, work)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin something of our own that leaving the bridge waits for; it must not raise."""
        self._nursery.start_soon(work)

    async def _look(self, lane: _Lane, work: Callable[[], T], *, is_brief: bool = True) -> T:
        return await self._carry(lane, _Job(work, is_change=False, is_brief=is_brief), self.deadlines.look)

    async def _change(self, lane: _Lane, work: Callable[[], T], deadline: float, *, is_brief: bool = True) -> T:
        self._changes.count(1)
        return await self._carry(lane, _Job(work, is_change=True, is_brief=is_brief), deadline)

    async def _carry(self, lane: _Lane, job: _Job[T], deadline: float) -> T:
        self._statistics.hops += 1
        lane.begin(job)
        # `trio.fail_after` is this and two generators.
        with trio.CancelScope(deadline=trio.current_time() + deadline):
            return await job.outcome()
        raise trio.TooSlowError


@asynccontextmanager
async def open_bridge(
    *, statistics: Statistics, deadlines: Deadlines | None = None, cores: Cores | None = None
) -> AsyncIterator[Bridge]:
    """Open the bridge; leaving it waits until every change that was begun has ended."""
    changes = _Changes()
    try:
        async with trio.open_nursery() as nursery:
            yield Bridge(
                nursery=nursery,
                changes=changes,
                deadlines=deadlines or Deadlines(),
                statistics=statistics,
                cores=cores or Cores(),
            )
    finally:
        with trio.CancelScope(shield=True):
            await changes.ended()
