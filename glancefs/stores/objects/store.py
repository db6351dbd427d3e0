# SPDX-License-Identifier: Apache-2.0
"""Images in one container of an object store.

::

    data/KEY      complete data, visible in one step
    claims/KEY    who uploads to a key, or reads what is deleted (`glancefs.stores.objects.claims`)
    registry      whose images these are (`glancefs.registries.base.Registry.identity`)

What an engine makes of its own beside it (the parts of large objects, in Swift) it keeps out of these names.

Answers for the promises of every store over an `ObjectEngine`. Data that are deleted while this process reads them stay
until it is done; readers in other processes find them missing at their next request, and never get wrong ones.

Threading: every method may be called from many threads and processes; a key belongs to the thread that claimed it.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, cast

from glancefs.errors import ConfigError, DataMissing, GlancefsError, StoreFull
from glancefs.model import Location
from glancefs.stores.base import Capabilities, Source, Space, Stored, Swept
from glancefs.stores.objects.claims import Claims, Timing
from glancefs.stores.objects.engine import ObjectEngine, Persistence
from glancefs.stores.objects.reading import ObjectStream
from glancefs.stores.objects.sweeping import Sweep
from glancefs.stores.objects.uploads import ObjectUpload
from glancefs.stores.owner import Owner
from glancefs.stores.pipeline import copy

_log = logging.getLogger(__name__)

__all__ = ["ObjectStore", "Timing"]

_KEY = re.compile(r"[0-9a-f]{32}")
_DATA: Final = "data/"
_NOTE: Final = "registry"
_NO_QUOTA_FOR: Final = 30.0
"""In seconds: how long it is taken for granted that a container has no quota."""


class ObjectStore:
    """Keeps images in the container of an engine, which is made when it is first needed.

    ``part_size`` is the bytes that are gathered before they are sent, ``retries`` how often a call that fails is tried
    again. ``owner`` is the registry whose images these are; where the container keeps those of another one, claims and
    sweeps raise ConfigError. None does not ask.
    """

    def __init__(
        self,
        *,
        scheme: str,
        engine: ObjectEngine,
        part_size: int,
        retries: int,
        owner: Owner | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.scheme: Final = scheme
        self.capabilities: Final = Capabilities(is_remote=True, keeps_open_data=False, knows_room=engine.has_quotas)
        self._engine: Final = engine
        self._part_size: Final = part_size
        self._owner: Final = owner
        self._persistence: Final = Persistence(store=scheme, retries=retries)
        self._claims: Final = Claims(
            store=scheme, engine=engine, persistence=self._persistence, timing=timing or Timing()
        )
        self._is_ready = False
        self._unlimited_until = 0.0
        self._lock: Final = Lock()
        self._promised: Final[dict[str, int]] = {}
        """Bytes set aside for running uploads, by key."""
        self._readers: Final[Counter[str]] = Counter()
        self._doomed: Final[dict[str, ExitStack]] = {}
        """Claims on data that are deleted and still read here."""

    @property
    def staging_folder(self) -> None:
        """None: a container takes no file over by renaming it."""
        return

    def adopt(self, key: str, file: Path, *, checksum: str | None) -> Stored:
        """Refuse: this store does not say `adopts_files`."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of connections and threads; may be called twice."""
        with self._lock:
            doomed = list(self._doomed)
        for key in doomed:
            self._end_reading(key)
        self._claims.close()
        self._engine.close()

    # Data on their way in

    @contextmanager
    def claim(self) -> Iterator[str]:
        """Take a new key; see `glancefs.stores.base.Store.claim`. Raises StoreUnavailable, ConfigError."""
        self._make_ready()
        key = secrets.token_hex(16)
        with self._claims.hold(key):
            yield key

    def add(self, key: str, source: Source, *, size: int | None) -> Stored:
        """Keep what the source gives; see `glancefs.stores.base.Store.add`. Raises StoreFull, StoreUnavailable."""
        self._claims.use(key)
        upload = ObjectUpload(
            name=_DATA + key, engine=self._engine, persistence=self._persistence, part_size=self._part_size
        )
        rationed = self._rationed(key, upload.write, size or 0)
        try:
            copied = copy(source, rationed, size=size)
            upload.finish()
            self._claims.check(key)
        except BaseException:
            upload.give_up()
            raise
        finally:
            with self._lock:
                self._promised.pop(key, None)
        return Stored(location=self._location(key), size=copied.size, checksum=copied.checksum)

    def _rationed(self, key: str, write: Callable[[memoryview], None], size: int) -> Callable[[memoryview], None]:
        """Give a ``write`` that holds to the room there is now, less what others were promised. Raises StoreFull.

        Quotas are counted here too, since engines notice for a minute or more not that one is used up.
        """
        space = self._quota()
        if space is None:
            return write
        came = 0

        def within_quota(data: memoryview) -> None:
            nonlocal came
            came += len(data)
            self._promise(key, max(came, size), space)
            write(data)

        self._promise(key, size, space)
        return within_quota

    def _promise(self, key: str, size: int, space: Space) -> None:
        with self._lock:
            others = sum(promised for other, promised in self._promised.items() if other != key)
            if others + size > space.free:
                raise StoreFull(f"The store {self.scheme!r} has no room for {size} bytes.")
            self._promised[key] = size

    def _quota(self) -> Space | None:
        """Give the room as `space` does; that there is no quota is known for a while."""
        if not self.capabilities.knows_room or time.monotonic() < self._unlimited_until:
            return None
        space = self.space()
        if space is None:
            self._unlimited_until = time.monotonic() + _NO_QUOTA_FOR
        return space

    # Data that are there

    def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
        """Open the data for reading; see `glancefs.stores.base.Store.open`. Raises DataMissing, StoreUnavailable.

        What it gives can be moved (``seek``) within the whole of the data.
        """
        self._check(location)
        key = location.key
        with self._lock:
            if key in self._doomed:
                raise _missing(location)
            self._readers[key] += 1
        try:
            size = self.size(location)
        except BaseException:
            self._end_reading(key)
            raise
        stream = ObjectStream(
            name=_DATA + key,
            start=start,
            stop=size if stop is None else min(stop, size),
            engine=self._engine,
            persistence=self._persistence,
            missing=lambda: _missing(location),
            on_close=lambda: self._end_reading(key),
        )
        return cast("BinaryIO", stream)

    def size(self, location: Location) -> int:
        """Give the number of bytes kept. Raises DataMissing, StoreUnavailable."""
        self._check(location)
        found = None
        if location.key not in self._doomed:
            found = self._persistence.run("looking at data", lambda: self._engine.look(_DATA + location.key))
        if found is None:
            raise _missing(location)
        return found.size

    def delete(self, location: Location) -> None:
        """Remove the data; data that are not there are fine. Raises StoreUnavailable."""
        if not self._is_mine(location):
            return
        key = location.key
        if self._readers[key] and key not in self._doomed:
            claims = ExitStack()
            claims.enter_context(self._claims.hold(key))
            with self._lock:
                if self._readers[key] and key not in self._doomed:
                    self._doomed[key] = claims
                    return
            claims.close()
        if key not in self._doomed:
            self._remove(key)

    def _remove(self, key: str) -> None:
        self._persistence.run("removing data", lambda: self._engine.remove(_DATA + key))

    def _end_reading(self, key: str) -> None:
        with self._lock:
            self._readers[key] -= 1
            if self._readers[key] > 0:
                return
            del self._readers[key]
            claims = self._doomed.get(key)
        if claims is None:
            return
        try:
            with claims:
                self._remove(key)
        except GlancefsError:
            # It has been logged; no row names these data, so a sweep takes them.
            return
        finally:
            with self._lock:
                self._doomed.pop(key, None)

    def space(self) -> Space | None:
        """Tell the room there is; None without a quota. Raises StoreUnavailable, also where nothing is told."""
        return self._persistence.run("looking for room", self._engine.space)

    # Claims and sweeping

    def is_claimed(self, location: Location) -> bool:
        """Say whether a living process seems to hold the claim of this key. Raises StoreUnavailable."""
        return self._is_mine(location) and self._claims.is_claimed(location.key)

    def sweep(self, known: Callable[[Collection[Location]], Collection[Location]]) -> Swept:
        """Remove what nobody wants; see `glancefs.stores.base.Store.sweep`. Raises StoreUnavailable, as ``known`` does.

        Takes as long as claims are watched where some look dead.
        """
        self._make_ready()
        sweep = Sweep(
            engine=self._engine,
            claims=self._claims,
            persistence=self._persistence,
            prefix=_DATA,
            location_of=self._location_of,
            known=known,
        )
        return sweep.run()

    # Ours and others'

    def _make_ready(self) -> None:
        """Make the container, and see that its images are our registry's. Raises StoreUnavailable, ConfigError."""
        if self._is_ready:
            return
        self._persistence.run("making its container", self._engine.prepare)
        if self._owner is not None:
            self._check_owner(self._owner)
        self._is_ready = True

    def _check_owner(self, owner: Owner) -> None:
        noted = self._read_note()
        if noted is None and owner.has_images and self._persistence.run("looking at its container", self._is_empty):
            raise ConfigError(
                f"The container of the store {self.scheme!r} is empty, and the registry names images in it: is it the "
                f"right one? If they are lost for good, make an object {_NOTE!r} in it."
            )
        if not noted:
            note = f"{owner.registry}\n".encode()
            # Of many who begin at once one writes the note; an empty one is how an operator says: take it.
            is_first = noted is None
            self._persistence.run("noting its registry", lambda: self._engine.put(_NOTE, note, is_new=is_first))
            noted = self._read_note()
        if noted != owner.registry:
            raise ConfigError(
                f"The container of the store {self.scheme!r} keeps the images of another registry than the one that is "
                f"configured. If that one is lost for good, remove the object {_NOTE!r} from it."
            )

    def _read_note(self) -> str | None:
        def read() -> str | None:
            found = self._engine.look(_NOTE)
            if found is None or not found.size:
                return None if found is None else ""
            body = self._engine.read(_NOTE, 0, found.size)
            if body is None:
                return None
            try:
                return body.read(found.size).decode(errors="replace").strip()
            finally:
                body.close()

        return self._persistence.run("reading whose images it keeps", read)

    def _is_empty(self) -> bool:
        return not self._engine.page("", "")

    def _location(self, key: str) -> Location:
        return Location(store=self.scheme, key=key)

    def _location_of(self, name: str) -> Location | None:
        """Give the location of data by their object's name; None for an object of somebody else."""
        key = name.removeprefix(_DATA)
        return self._location(key) if _KEY.fullmatch(key) else None

    def _is_mine(self, location: Location) -> bool:
        return location.store == self.scheme and _KEY.fullmatch(location.key) is not None

    def _check(self, location: Location) -> None:
        if not self._is_mine(location):
            raise _missing(location)


def _missing(location: Location) -> DataMissing:
    return DataMissing(f"The data {location} are not in their store.")
