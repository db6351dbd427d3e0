# SPDX-License-Identifier: Apache-2.0
"""What dead processes left in an object store, and how it is told from what the living are at.

Answers for one sweep. Nothing is removed but what, in this order, a fresh look found unclaimed and the registry, asked
after that look, does not name: a claim is there before the first byte of its upload and ends after its row, so what is
unclaimed and unnamed then will never be named. Lists serve for finding candidates only, since they lag behind.

Threading: belongs to one thread; many sweeps may run at once, each thing is removed by any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from glancefs.model import Location
from glancefs.stores.base import Swept
from glancefs.stores.objects.claims import Claims
from glancefs.stores.objects.engine import Found, ObjectEngine, Persistence, Unfinished

_BATCH: Final = 500
"""How many keys the registry is asked about at once."""
_DOING: Final = "sweeping"


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One sweep of a container, whose data are below ``prefix``."""

    engine: ObjectEngine
    claims: Claims
    persistence: Persistence
    prefix: str
    location_of: Callable[[str], Location | None]
    known: Callable[[Collection[Location]], Collection[Location]]
    _uploads: set[str] = field(default_factory=set)
    _orphans: int = 0
    _size: int = 0

    def run(self) -> Swept:
        """Carry it out. Raises StoreUnavailable, and what ``known`` raises."""
        dead = self.claims.take_back_dead()
        self._uploads.update(key for key in dead if self._look(self.prefix + key) is None)
        for unfinished in self.persistence.run(_DOING, lambda: self.engine.unfinished(self.prefix)):
            self._sweep_unfinished(unfinished)
        for batch in _batches(self.persistence.every(_DOING, partial(self.engine.page, self.prefix))):
            self._sweep_data(batch)
        return Swept(uploads=len(self._uploads), orphans=self._orphans, size=self._size)

    def _sweep_unfinished(self, unfinished: Unfinished) -> None:
        location = self.location_of(unfinished.name)
        if location is None or not self._is_unwanted(location):
            return
        self.persistence.run(_DOING, lambda: self.engine.discard(unfinished.name, unfinished.token))
        self._uploads.add(location.key)
        self._size += unfinished.size

    def _sweep_data(self, batch: list[Found]) -> None:
        by_location = {location: found for found in batch if (location := self.location_of(found.name))}
        for location in by_location.keys() - set(self.known(by_location.keys())):
            name = by_location[location].name
            if not self._is_unwanted(location) or (found := self._look(name)) is None:
                continue
            self.persistence.run(_DOING, partial(self.engine.remove, name))
            self._orphans += 1
            self._size += found.size

    def _is_unwanted(self, location: Location) -> bool:
        return not self.claims.exists(location.key) and location not in self.known([location])

    def _look(self, name: str) -> Found | None:
        return self.persistence.run(_DOING, lambda: self.engine.look(name))


def _batches(found: Iterable[Found]) -> Iterator[list[Found]]:
    iterator = iter(found)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
