# SPDX-License-Identifier: Apache-2.0
"""Claims of keys where there are no locks: a small object for each, renewed as long as its process lives.

Answers for who holds which key, for telling the dead from the living, and for noticing that a claim of ours was taken
back. No clock of any of our hosts is trusted: ages are told by the engine, from two times that it made itself; and a
claim that looks too old by them is watched for some time before it counts as dead, since clocks of engines jump, too.

What remains: a process that was stopped for longer than the grace, after its last look at its claim and before its row
was committed, may commit a row whose data are swept. Nothing but the registry could exclude that.

Threading: may be used by many threads; one of its own renews claims, and ends when there are none.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from glancefs.errors import GlancefsError, StoreUnavailable
from glancefs.stores.objects.engine import EngineError, ObjectEngine, Persistence

_log = logging.getLogger(__name__)

PREFIX: Final = "claims/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How claims live, in seconds; every process on a container must have the same."""

    beat: float = 30.0
    """How often a claim is renewed."""
    grace: float = 900.0
    """How old a claim may be, by the engine's clock, before it is suspected to be a dead process's."""
    watch: float = 75.0
    """For how long a suspected one is watched: more than two beats."""


@dataclass(slots=True, kw_only=True)
class _Claim:
    key: str
    renewed: float
    """When it was renewed last, on a clock that runs on while the machine is suspended."""
    is_lost: bool = False
    is_used: bool = False


class Claims:
    """The claims of one process on one container."""

    def __init__(self, *, store: str, engine: ObjectEngine, persistence: Persistence, timing: Timing) -> None:
        self._store: Final = store
        self._engine: Final = engine
        self._persistence: Final = persistence
        self._timing: Final = timing
        self._claims: Final[dict[str, _Claim]] = {}
        self._changed: Final = threading.Condition()
        self._beating: threading.Thread | None = None
        self._label: Final = f"{socket.gethostname()} {os.getpid()}\n".encode()

    # ---- ours

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold a key until the context ends. Raises StoreUnavailable."""
        name = PREFIX + key
        before = _now()
        self._persistence.run("beginning an upload", lambda: self._engine.put(name, self._label))
        with self._changed:
            self._claims[key] = _Claim(key=key, renewed=before)
            self._keep_beating()
        try:
            yield
        finally:
            with self._changed:
                del self._claims[key]
                self._changed.notify_all()
            self._let_go(name)

    def use(self, key: str) -> None:
        """Say that a key is being used up. Raises ValueError where it is not a fresh one of ours."""
        with self._changed:
            claim = self._claims.get(key)
            if claim is None or claim.is_used:
                raise ValueError(f"{key!r} is no fresh key claimed here")
            claim.is_used = True

    def check(self, key: str) -> None:
        """See that a claim of ours still stands in everybody's eyes. Raises StoreUnavailable."""
        claim = self._claims[key]
        if not claim.is_lost and _now() - claim.renewed < self._timing.grace / 2:
            return
        if claim.is_lost or not self._persistence.run("renewing a claim", lambda: self._renew(claim)):
            message = f"The store {self._store!r} was out of reach for so long that the upload was given up."
            raise StoreUnavailable(message)

    def holds(self, key: str) -> bool:
        """Say whether this process holds a key."""
        return key in self._claims

    def close(self) -> None:
        """Stop renewing; claims that are still held die."""
        with self._changed:
            self._claims.clear()
            self._changed.notify_all()
            beating, self._beating = self._beating, None
        if beating is not None and beating is not threading.current_thread():
            beating.join()

    def _let_go(self, name: str) -> None:
        # Left behind, it dies of its age.
        self._persistence.try_once("ending an upload", lambda: self._engine.remove(name))

    # ---- everybody's

    def is_claimed(self, key: str) -> bool:
        """Say whether a living process seems to hold a key. Raises StoreUnavailable."""
        if self.holds(key):
            return True
        found = self._persistence.run("looking for an upload", lambda: self._engine.look(PREFIX + key))
        return found is not None and found.age <= self._timing.grace

    def exists(self, key: str) -> bool:
        """Say whether there is a claim, of a living process or a dead one. Raises StoreUnavailable."""
        if self.holds(key):
            return True
        return self._persistence.run("looking for an upload", lambda: self._engine.look(PREFIX + key)) is not None

    def take_back_dead(self, *, wait: Callable[[float], object] = time.sleep) -> list[str]:
        """Remove the claims of dead processes, which takes as long as they are watched. Gives their keys.

        Raises StoreUnavailable.
        """
        suspects = {}
        for listed in self._persistence.every("sweeping", partial(self._engine.page, PREFIX)):
            if self.holds(listed.name.removeprefix(PREFIX)):
                continue
            # Not what the list says: lists lag behind, and a claim would look older than it is.
            found = self._persistence.run("sweeping", partial(self._engine.look, listed.name))
            if found is not None and found.age > self._timing.grace:
                suspects[found.name] = found.modified
        if suspects:
            wait(self._timing.watch)
        return [name.removeprefix(PREFIX) for name in suspects if self._take_back(name, suspects[name])]

    def _take_back(self, name: str, modified: str) -> bool:
        found = self._persistence.run("sweeping", lambda: self._engine.look(name))
        if found is None or found.modified != modified:
            return False
        self._persistence.run("sweeping", lambda: self._engine.remove(name))
        return True

    # ---- renewing

    def _keep_beating(self) -> None:
        if self._beating is None or not self._beating.is_alive():
            self._beating = threading.Thread(target=self._beat, name=f"claims of {self._store}", daemon=True)
            self._beating.start()

    def _beat(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: not self._claims, self._timing.beat):
                    due = [claim for claim in self._claims.values() if not claim.is_lost]
                else:
                    self._beating = None
                    return
            for claim in due:
                self._renew_once(claim)

    def _renew_once(self, claim: _Claim) -> None:
        try:
            self._renew(claim)
        except (EngineError, GlancefsError) as error:
            _log.info("Store %r: the claim of an upload was not renewed: %s", self._store, error)
        except Exception:  # noqa: BLE001 - the last guard of its thread: it is logged
            _log.exception("Store %r: the claim of an upload was not renewed", self._store)

    def _renew(self, claim: _Claim) -> bool:
        before = _now()
        if self._engine.renew(PREFIX + claim.key):
            claim.renewed = before
            return True
        if claim.key in self._claims:
            claim.is_lost = True
        return False


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
