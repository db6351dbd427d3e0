# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for a change of the registry: all of a process are woken by one thread.

Answers for ringing their bells (see `gateway.http`) when there is something after the revision that each knows. The
thread is there only as long as somebody waits; they themselves hold none. Does not know what they are answered.

Threading: shared by all threads of a process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from glancefs.errors import GlancefsError

_log = logging.getLogger(__name__)

LONGEST_WAIT: Final = 30
"""For how many seconds a request waits at the most."""

_LOOK: Final = 1.0
"""For how many seconds news are waited for before it is looked whether anybody still wants them."""


class Bell(Protocol):
    """What has a request answered that waits (see `gateway.http`)."""

    @property
    def is_wanted(self) -> bool:
        """Whether the request still waits."""
        ...

    def ring(self) -> None:
        """Have it answered."""
        ...


class Waking:
    """Rings bells; ``revision`` gives the latest, ``wait`` waits so many seconds for another, and may come early."""

    def __init__(self, *, revision: Callable[[], int], wait: Callable[[float], object]) -> None:
        self._revision: Final = revision
        self._wait: Final = wait
        self._lock: Final = threading.Lock()
        self._bells: list[Bell] = []
        self._known = 0
        self._is_watching = False
        self._is_closed = False

    def wake(self, bell: Bell, *, since: int) -> None:
        """Ring a bell as soon as there is something after a revision."""
        with self._lock:
            if self._known > since:
                bell.ring()
                return
            self._bells.append(bell)
            if not self._is_watching and not self._is_closed:
                self._is_watching = True
                threading.Thread(target=self._watch, name="waking", daemon=True).start()

    def close(self) -> None:
        """Wake nobody any more."""
        self._is_closed = True

    def _watch(self) -> None:
        is_first = True
        while self._go_on():
            try:
                if not is_first:
                    self._wait(_LOOK)
                is_first = False
                revision = self._revision()
            except GlancefsError:
                # Those who wait ask again, and are told what is wrong.
                self._ring(None)
            except Exception:  # noqa: BLE001 - the last guard of its thread: it is logged
                _log.exception("changes can't be watched")
                self._ring(None)
            else:
                if revision != self._known:
                    self._ring(revision)

    def _go_on(self) -> bool:
        with self._lock:
            self._bells = [bell for bell in self._bells if bell.is_wanted]
            self._is_watching = bool(self._bells) and not self._is_closed
            return self._is_watching

    def _ring(self, revision: int | None) -> None:
        with self._lock:
            bells, self._bells = self._bells, []
            self._known = self._known if revision is None else revision
        for bell in bells:
            bell.ring()
