# SPDX-License-Identifier: Apache-2.0
"""Whether this server can do its work: what ``/healthcheck`` tells.

Answers for asking the registry and the stores, in bounded time and at most once a second, whatever hangs. Says which
part is unwell and how, in words that name no file and no host, since nobody is asked who they are.

Threading: shared by all threads of a process; each part is asked in a thread of its own, which a part that hangs keeps.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glancefs.errors import GlancefsError
from glancefs.registries.base import Registry
from glancefs.stores.base import Store

_log = logging.getLogger(__name__)

FINE: Final = "ok"
_NO_ANSWER: Final = "does not answer"
_LEAST_FREE: Final = 16 << 20
"""Below this many bytes a store takes no image worth the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How each part is: `FINE`, or what is wrong."""

    parts: Mapping[str, str]

    @property
    def is_well(self) -> bool:
        """Whether every part is fine."""
        return all(state == FINE for state in self.parts.values())


class Health:
    """Asks the parts of one process how they are. ``timeout`` and ``age`` are seconds."""

    def __init__(
        self, *, registry: Registry, stores: Mapping[str, Store], timeout: float = 2.0, age: float = 1.0
    ) -> None:
        checks = {"registry": lambda: _registry_state(registry)}
        checks |= {f"store {name}": _store_check(store) for name, store in stores.items()}
        self._parts = {name: _Part(name=name, ask=ask, age=age) for name, ask in checks.items()}
        self._timeout = timeout

    def report(self) -> Report:
        """Tell how the parts are, after ``timeout`` seconds at the most; the log is told of each that turns unwell."""
        deadline = time.monotonic() + self._timeout
        for part in self._parts.values():
            part.start()
        return Report(parts={name: part.state(deadline) for name, part in self._parts.items()})


class _Part:
    """One part that is asked by one thread at a time, which ends with its answer."""

    def __init__(self, *, name: str, ask: Callable[[], str], age: float) -> None:
        self._name = name
        self._ask = ask
        self._age = age
        self._changed = threading.Condition()
        self._is_asking = False
        self._state = FINE
        self._told = FINE
        self._answered_at: float | None = None

    def start(self) -> None:
        """Ask, unless the last answer is fresh or still awaited."""
        with self._changed:
            if self._is_asking or self._is_fresh():
                return
            self._is_asking = True
        threading.Thread(target=self._run, name=f"health of {self._name}", daemon=True).start()

    def state(self, deadline: float) -> str:
        """Wait for the answer until the deadline, and give it."""
        with self._changed:
            answered = self._changed.wait_for(lambda: not self._is_asking, max(0.0, deadline - time.monotonic()))
            state = self._state if answered else _NO_ANSWER
            turned, self._told = state != self._told, state
        if turned:
            _log.log(logging.INFO if state == FINE else logging.WARNING, "health of %s: %s", self._name, state)
        return state

    def _is_fresh(self) -> bool:
        return self._answered_at is not None and time.monotonic() - self._answered_at < self._age

    def _run(self) -> None:
        state = _NO_ANSWER
        try:
            state = self._ask()
        except GlancefsError as error:
            _log.info("%s: %s", self._name, error)
        except Exception:  # noqa: BLE001 - the last guard of its thread: it is logged
            _log.exception("the health of %s could not be asked", self._name)
        finally:
            with self._changed:
                self._state = state
                self._is_asking = False
                self._answered_at = time.monotonic()
                self._changed.notify_all()


def _registry_state(registry: Registry) -> str:
    registry.revision()
    return FINE


def _store_check(store: Store) -> Callable[[], str]:
    def state() -> str:
        folder = store.staging_folder
        if folder is not None and not _can_be_written(folder):
            return "can't be written"
        space = store.space()
        if space is not None and space.free < _LEAST_FREE:
            return "has no room left"
        return FINE

    return state


def _can_be_written(folder: Path) -> bool:
    # A store makes its folders with its first image, so what counts is the nearest one there is.
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK | os.X_OK)
