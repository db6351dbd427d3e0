# SPDX-License-Identifier: Apache-2.0
"""What a store holds, and what still fits in, asked for again and again.

Answers for asking neither more often than there is news nor so often that counting is felt.

Threading: asks in a thread of its own, since a registry or a store may take its time; `held` may be read from any.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from glancefs.cli.happenings import Held
from glancefs.errors import GlancefsError
from glancefs.model import ImageStatus

if TYPE_CHECKING:
    from glancefs.assembly import Assembly
    from glancefs.config import Config

_PERIOD: Final = 1.0
"""Seconds between two questions for the registry's revision, which is cheap."""
_REST: Final = 20.0
"""How many times as long as it took to count the images is waited before they are counted again."""


class Inventory:
    """Asks until it is stopped. What can't be asked is unknown: the doors themselves say why in the log."""

    def __init__(self, config: Config) -> None:
        self.held: Held | None = None
        self._config: Final = config
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._ask, name="inventory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        self._stopping.set()
        self._thread.join(_PERIOD)

    def _ask(self) -> None:
        from glancefs.assembly import assemble
        from glancefs.cli.owner import act_as_owner

        # Of this thread alone, as each door does for itself.
        act_as_owner(self._config.data)
        while not self._stopping.is_set():
            try:
                with assemble(self._config) as core:
                    self._ask_on(core)
            except GlancefsError:
                self.held = None
            self._stopping.wait(_PERIOD)

    def _ask_on(self, core: Assembly) -> None:
        counted: tuple[int, int, int] | None = None
        revision, next_count = -1, 0.0
        while not self._stopping.is_set():
            now = core.registry.revision()
            if counted is None or (now != revision and time.monotonic() >= next_count):
                began = time.monotonic()
                revision, counted = now, _counted(core)
                next_count = time.monotonic() + _REST * (time.monotonic() - began)
            images, size, waiting = counted
            space = core.stores[core.config.default_store].space()
            self.held = Held(images=images, size=size, waiting=waiting, free=space.free if space else None)
            self._stopping.wait(_PERIOD)


def _counted(core: Assembly) -> tuple[int, int, int]:
    """Give the available images, their bytes, and the images that wait for theirs."""
    holdings = core.registry.holdings()
    available = [held for held in holdings if held.status is ImageStatus.AVAILABLE]
    waiting = sum(held.images for held in holdings if held.status in {ImageStatus.QUEUED, ImageStatus.SAVING})
    return sum(held.images for held in available), sum(held.size for held in available), waiting
