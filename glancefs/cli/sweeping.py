# SPDX-License-Identifier: Apache-2.0
"""The sweep at the start of a door, beside its first requests.

Answers for its failing without anybody being disturbed. What is swept, `glancefs.assembly.clear_up` knows.

Threading: belongs to the thread that makes it; the sweep runs in one of its own, which keeps nobody from ending.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from glancefs.errors import GlancefsError

if TYPE_CHECKING:
    from glancefs.assembly import Assembly

_log = logging.getLogger(__name__)

PATIENCE: Final = 0.5
"""In seconds: abandoned uploads go first and are few, so they are gone before anybody asks; a long rest is not waited
for."""


class FirstSweep:
    """One sweep of what dead processes left."""

    def __init__(self, core: Assembly) -> None:
        self._core = core
        self._is_stopping = False

    def begin(self, *, patience: float = PATIENCE) -> None:
        """Start it, and wait so many seconds for its end."""
        sweeping = threading.Thread(target=self._sweep, name="sweep", daemon=True)
        sweeping.start()
        sweeping.join(patience)

    def stop(self) -> None:
        """Say that the core is about to be closed: what fails from here on is nobody's fault."""
        self._is_stopping = True

    def _sweep(self) -> None:
        from glancefs.assembly import clear_up

        try:
            clear_up(self._core)
        except GlancefsError as error:
            if not self._is_stopping:
                _log.warning("The sweep at the start failed; `glancefs gc` repeats it: %s", error)
        except Exception:  # noqa: BLE001 - the last guard of its thread: it is logged
            if not self._is_stopping:
                _log.exception("The sweep at the start failed")
