# SPDX-License-Identifier: Apache-2.0
"""Every image held against its bytes: whether they are there, as many as they should be, and the same.

Answers for finding damage and for nothing else: it changes no row and no data. Images that are deleted while they are
looked at are no findings.

Threading: an audit belongs to one caller; it reads with two threads of its own, which end with the iteration.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event, Lock
from typing import Final

from glancefs.errors import DataMissing, ImageNotFound, StoreUnavailable
from glancefs.model import Image, ImageStatus, Location
from glancefs.registries.base import ImageQuery, Registry, SortDirection, every_image
from glancefs.stores.base import Store

READERS: Final = 2
"""How many images are read at once: more would slow down those who use the store."""
BLOCK: Final = 1024 * 1024

_AVAILABLE = ImageQuery(
    sees_all=True, is_public=None, status=ImageStatus.AVAILABLE, sort_direction=SortDirection.ASCENDING
)


class Damage(StrEnum):
    """What can be wrong with the data of an image."""

    MISSING = "missing"
    SIZE = "size"
    CHECKSUM = "checksum"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One image that is not what its row says."""

    image_id: str
    image_name: str
    what: Damage
    sentence: str


Progress = Callable[[int, int, Image], None]
"""Called with the bytes done, the bytes there are in all, and the image at hand; by one thread at a time."""


def audit(
    *, registry: Registry, stores: Mapping[str, Store], quick: bool = False, progress: Progress | None = None
) -> Iterator[Finding]:
    """Look at every available image and give each that is damaged, in the order in which they were added.

    With ``quick`` the data are not read: only their presence and size are looked at. ``progress`` is called for every
    piece that was read and at the end of every image. Raises RegistryUnavailable.
    """
    total = sum(held.size for held in registry.holdings() if held.status is ImageStatus.AVAILABLE)
    audited = _Audit(registry=registry, stores=stores, quick=quick, progress=progress, total=total)
    pending: deque[Future[Finding | None]] = deque()
    with ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="audit") as readers:
        try:
            for image in every_image(registry, _AVAILABLE):
                pending.append(readers.submit(audited.look_at, image))
                if len(pending) > 2 * READERS and (finding := pending.popleft().result()):
                    yield finding
            while pending:
                if finding := pending.popleft().result():
                    yield finding
        finally:
            audited.stopped.set()
            for future in pending:
                future.cancel()


@dataclass(slots=True, kw_only=True)
class _Audit:
    registry: Registry
    stores: Mapping[str, Store]
    quick: bool
    progress: Progress | None
    total: int
    done: int = 0
    lock: Lock = field(default_factory=Lock)
    stopped: Event = field(default_factory=Event)

    def look_at(self, image: Image) -> Finding | None:
        """Give what is wrong with an image, if anything is."""
        counted = _Counted(audit=self, image=image)
        what = self._damage(image, counted)
        counted.complete()
        if what is None or self.stopped.is_set() or not self._is_current(image):
            return None
        damage, sentence = what
        return Finding(image_id=image.id, image_name=image.name, what=damage, sentence=sentence)

    def _damage(self, image: Image, counted: _Counted) -> tuple[Damage, str] | None:
        try:
            store, location = self._place(image)
            size = store.size(location)
            if size != image.size:
                return Damage.SIZE, f"There are {size} bytes of data instead of {image.size}."
            if self.quick:
                return None
            checksum = self._checksum(store, location, counted)
        except DataMissing as error:
            return Damage.MISSING, str(error)
        except (StoreUnavailable, OSError) as error:
            return Damage.UNREADABLE, f"The data can't be read: {error}"
        if checksum != image.checksum:
            return Damage.CHECKSUM, f"The data have the checksum {checksum} instead of {image.checksum}."
        return None

    def _place(self, image: Image) -> tuple[Store, Location]:
        if image.location is None:
            raise DataMissing("The registry does not say where the data are.")
        store = self.stores.get(image.location.store)
        if store is None:
            raise StoreUnavailable(f"The store {image.location.store!r} is not configured here.")
        return store, image.location

    def _checksum(self, store: Store, location: Location, counted: _Counted) -> str:
        digest = hashlib.sha256(usedforsecurity=False)
        with store.open(location) as stream:
            while not self.stopped.is_set() and (piece := stream.read(BLOCK)):
                digest.update(piece)
                counted.add(len(piece))
        return f"sha256:{digest.hexdigest()}"

    def _is_current(self, image: Image) -> bool:
        """Say whether the row still says what was held against the data."""
        try:
            now = self.registry.get(image.id)
        except ImageNotFound:
            return False
        return now.status is ImageStatus.AVAILABLE and now.location == image.location


@dataclass(slots=True, kw_only=True)
class _Counted:
    """How much of one image counts as done."""

    audit: _Audit
    image: Image
    done: int = 0

    def add(self, size: int) -> None:
        self.done += size
        with self.audit.lock:
            self.audit.done += size
            if self.audit.progress is not None:
                self.audit.progress(self.audit.done, self.audit.total, self.image)

    def complete(self) -> None:
        """Count what was not read too, so that the sum arrives at the total."""
        self.add(self.image.size - self.done)
