# SPDX-License-Identifier: Apache-2.0
"""A mount from its beginning to its end: the loop, its signals, and what is finished before the process ends.

Answers for the order of things. At the start: the kernel is answered, then read-ahead is raised (the kernel would
clamp it back before), then the mount is called ready. At the end: no new requests, what is complete becomes an image,
changes under way are waited for, then the process goes. Does not fork and does not log: `glancefs.fuse.daemon` does.

Threading: `serve` is the main thread's; it owns the event loop.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from glancefs.errors import ConfigError, GlancefsError
from glancefs.fuse import table
from glancefs.fuse.attributes import Appearance
from glancefs.fuse.bridge import Bridge, Deadlines, open_bridge
from glancefs.fuse.notices import Kernel
from glancefs.fuse.options import MountOptions
from glancefs.fuse.passthrough import Passthrough
from glancefs.fuse.priority import Pace
from glancefs.fuse.receiving import Receiving
from glancefs.fuse.replies import Replies
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.views import Shared, TreePerUser, View, Views, open_view
from glancefs.tree import ImageTree

_log = logging.getLogger(__name__)

_UMASK: Final = 0o022
_MOST_REQUESTS: Final = 99
"""How many requests are answered at once; a request that waits for a store holds one of these places."""
_READY_TASKS: Final = 16
"""How many tasks wait for requests at the most; a task that ends after a request is made anew for the next one."""
_COLLECT_AFTER: Final = 20_000
"""How many objects are made before cycles are looked for: some pages of a folder."""
_KEPT_MEMORY: Final = 24 << 20
"""Bytes that may stay with the process when they are freed: what is written comes a few pieces of 1 MiB at a time."""
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_BUSY_PATIENCE: Final = 10.0
"""Seconds for which a signalled mount waits for files that are open before it is detached."""


class Session:
    """One mount."""

    def __init__(
        self,
        *,
        tree: ImageTree | TreePerUser,
        point: Path,
        source: str,
        options: MountOptions,
        statistics: Statistics,
        ready: Callable[[], None],
        deadlines: Deadlines | None = None,
    ) -> None:
        """``ready`` is called once the mount answers. ``point`` is absolute and free (`table.check_free`)."""
        self._tree: Final = tree
        self._point: Final = point
        self._source: Final = source
        self._options: Final = options
        self._statistics: Final = statistics
        self._ready: Final = ready
        self._deadlines: Final = deadlines
        self._pace: Final = Pace()

    def serve(self) -> None:
        """Mount, answer the kernel until the mount is taken away or a signal comes, and finish.

        Raises ConfigError when it can't be mounted.
        """
        # What was loaded by now stays: looking through it for cycles took an eighth of the time of a large listing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        _keep_buffers()
        self._pace.begin()
        try:
            trio.run(self._serve)
        except BaseExceptionGroup as group:
            # trio tells of what ended its tasks; whoever mounts wants the one sentence.
            if (refused := group.subgroup(ConfigError)) is None:
                raise
            raise _first(refused) from None

    async def _serve(self) -> None:
        async with open_bridge(
            statistics=self._statistics, deadlines=self._deadlines, cores=self._pace.cores
        ) as bridge:
            kernel, replies, receiving = Kernel(), Replies(), Receiving()
            passthrough = Passthrough(replies=replies, is_wanted=self._options.passthrough)
            view = await self._view(bridge, kernel, passthrough, receiving)
            if isinstance(view, View):
                # Whose view another one is, has to be found out first.
                receiving.ask(view.operations.absence)
            async with self._mounted(view.operations):
                kernel.attach()
                with replies.changed(offers_passthrough=passthrough.is_wanted), receiving.changed(kernel.device):
                    await self._answer(view, passthrough, receiving, kernel)
            await view.finish()

    async def _view(
        self, bridge: Bridge, kernel: Kernel, passthrough: Passthrough, receiving: Receiving
    ) -> View | Views:
        shared = Shared(
            bridge=bridge,
            kernel=kernel,
            passthrough=passthrough,
            receiving=receiving,
            pace=self._pace,
            options=self._options,
            appearance=self._appearance(),
        )
        if not isinstance(self._tree, TreePerUser):
            return await open_view(self._tree, shared, statistics=self._statistics, numbers=count(1))
        views = Views(self._tree, shared, statistics=self._statistics)
        await views.begin()
        return views

    @asynccontextmanager
    async def _mounted(self, operations: pyfuse3.Operations) -> AsyncIterator[None]:
        words = {f"fsname={self._source}", f"subtype={table.SUBTYPE}", "default_permissions", *self._options.libfuse}
        try:
            pyfuse3.init(operations, str(self._point), words)
        except RuntimeError as error:
            message = f"{self._point} can't be mounted: {error}."
            raise ConfigError(message) from None
        try:
            yield
        finally:
            pyfuse3.close()

    async def _answer(self, view: View | Views, passthrough: Passthrough, receiving: Receiving, kernel: Kernel) -> None:
        async with trio.open_nursery() as nursery:

            async def main() -> None:
                await pyfuse3.main(_READY_TASKS, _MOST_REQUESTS)
                nursery.cancel_scope.cancel()

            nursery.start_soon(main)
            nursery.start_soon(view.watch)
            nursery.start_soon(self._pace.run)
            # Not by a look at the mount: below systemd's automount that would wait for whoever waits for us.
            await view.operations.greeted.wait()
            passthrough.accept(kernel.device)
            self._read_ahead()
            nursery.start_soon(self._heed_signals)
            self._ready()
            passthrough.tell()
            receiving.tell()

    def _appearance(self) -> Appearance:
        said = self._options
        return Appearance(
            uid=said.uid,
            gid=said.gid,
            umask=said.umask if said.umask is not None else 0 if said.multiuser else _UMASK,
            attr_timeout=said.attr_timeout,
            entry_timeout=said.entry_timeout,
        )

    def _read_ahead(self) -> None:
        mounted = table.mounted_at(self._point)
        if mounted is None or not self._options.read_ahead:
            return
        try:
            Path(f"/sys/class/bdi/{mounted.device}/read_ahead_kb").write_text(str(self._options.read_ahead))
        except OSError as error:
            # Only root may; the mount is slower without, and right.
            _log.debug("read-ahead stays as it is: %s", error)

    async def _heed_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as arrived:
            async for number in arrived:
                if number == signal.SIGUSR1:
                    _log.info("%s", self._statistics.line())
                else:
                    await self._take_away()
                    return

    async def _take_away(self) -> None:
        """Unmount; who has files open gets a while to close them, and then keeps an unreachable mount."""
        with trio.move_on_after(_BUSY_PATIENCE) as patience:
            while True:
                try:
                    await trio.to_thread.run_sync(table.unmount, self._point, abandon_on_cancel=True)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        _log.warning("%s can't be unmounted: %s", self._point, error)
                        break
                    await trio.sleep(0.1)
                except GlancefsError as error:
                    _log.warning("%s can't be unmounted: %s", self._point, error)
                    break
                else:
                    return
        if patience.cancelled_caught:
            _log.warning("Somebody still has files of %s open; it is detached.", self._point)
        pyfuse3.terminate()


def _first(group: BaseExceptionGroup[ConfigError]) -> BaseException:
    [error, *_] = group.exceptions
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _keep_buffers() -> None:
    """Have malloc(3) use the memory of one write for the next.

    Else each piece is new memory that the kernel has to clear first, which took a third of the time of large writes.
    """
    try:
        change = ctypes.CDLL(None).mallopt
    except AttributeError:
        # Not the GNU C library; others have no such thresholds.
        return
    change(_M_TRIM_THRESHOLD, _KEPT_MEMORY)
    change(_M_MMAP_THRESHOLD, _KEPT_MEMORY)
