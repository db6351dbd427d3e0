# SPDX-License-Identifier: Apache-2.0
"""Who may occupy a thread for long.

Answers for the places: a request that must wait for its client, to read a body or to send a response, needs one, so
that a thread is always left for requests that need none. Does not answer for time limits; those are the pace's.

Threading: places are taken and given back by worker threads under a lock that is held for a few instructions. A pace
belongs to one request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class ClientGone(Exception):
    """The client went away, or is too slow to be waited for; there is nobody to answer."""


class Places:
    """A fixed number of places that are taken without waiting; `on_taken` is called by whoever took one."""

    def __init__(self, *, total: int, on_taken: Callable[[], None] | None = None) -> None:
        self._on_taken = on_taken
        self._lock = threading.Lock()
        self._total = total
        self._taken = 0

    def take(self) -> bool:
        """Take a place; False when there is none."""
        with self._lock:
            if self._taken >= self._total:
                return False
            self._taken += 1
        if self._on_taken is not None:
            self._on_taken()
        return True

    def give_back(self) -> None:
        """Give back a place that was taken."""
        with self._lock:
            self._taken -= 1

    @property
    def taken(self) -> int:
        """How many places are taken at this moment."""
        return self._taken


class Ticket:
    """One request's claim on one kind of place; claiming and giving back twice do no harm."""

    __slots__ = ("_places", "held")

    def __init__(self, places: Places) -> None:
        self._places = places
        self.held = False

    def claim(self) -> bool:
        """Take a place unless one is held already; False when there is none."""
        if not self.held:
            self.held = self._places.take()
        return self.held

    def release(self) -> None:
        """Give the place back, if one is held."""
        if self.held:
            self.held = False
            self._places.give_back()


class Pace:
    """How long one direction of one request may wait for its client.

    Only waiting counts: while the application works, the client is not blamed. `idle` is the longest single wait;
    after `grace` seconds of waiting in all, fewer than `rate` bytes for each of them are too few. Without a place (see
    `Ticket`) the waits may last `patience` seconds in all.
    """

    __slots__ = ("_grace", "_idle", "_moved", "_patience", "_rate", "_ticket", "_waited")

    def __init__(self, *, ticket: Ticket, idle: float, rate: int, grace: float, patience: float) -> None:
        self._ticket = ticket
        self._idle = idle
        self._rate = rate
        self._grace = grace
        self._patience = patience
        self._waited = 0.0
        self._moved = 0

    def moved(self, count: int) -> None:
        """Record that `count` bytes went over the wire."""
        self._moved += count

    def wait(self, ready: Callable[[float], bool]) -> None:
        """Wait by `ready(seconds)`, which says whether the wire can go on. Raises ClientGone when it is in vain."""
        budget = self._idle
        if not self._ticket.claim():
            budget = min(budget, self._patience - self._waited)
            if budget <= 0:
                raise ClientGone("no place is left for a client this slow")
        started = time.monotonic()
        came = ready(budget)
        self._waited += time.monotonic() - started
        if not came:
            raise ClientGone(f"nothing moved for {budget:g} s")
        if self._rate and self._waited > self._grace and self._moved < self._rate * self._waited:
            raise ClientGone(f"fewer than {self._rate} bytes per second")
