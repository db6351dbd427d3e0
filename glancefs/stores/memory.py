# SPDX-License-Identifier: Apache-2.0
"""Images in the memory of this process: for tests, and for trying things out.

Answers for the same promises as every store, except that nothing outlives the process and claims are its own.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

from glancefs.errors import DataMissing, StoreFull
from glancefs.model import Location
from glancefs.stores.base import Capabilities, Source, Space, Stored, Swept
from glancefs.stores.pipeline import copy


class MemoryStore:
    """Keeps images in a dictionary, up to ``capacity`` bytes (None: without a limit)."""

    capabilities: Final = Capabilities(copies_data=True, is_persistent=False)

    def __init__(self, *, scheme: str = "memory", capacity: int | None = None) -> None:
        self.scheme: Final = scheme
        self._capacity: Final = capacity
        self._lock: Final = Lock()
        self._claims: Final[set[str]] = set()
        self._data: Final[dict[str, bytes]] = {}
        self._promised: Final[dict[str, int]] = {}
        """Bytes set aside for running uploads, by key."""

    @property
    def staging_folder(self) -> None:
        """None: files can't be taken over into memory by renaming them."""
        return

    @contextmanager
    def claim(self) -> Iterator[str]:
        """Take a new key; see `glancefs.stores.base.Store.claim`."""
        key = secrets.token_hex(16)
        with self._lock:
            self._claims.add(key)
        try:
            yield key
        finally:
            with self._lock:
                self._claims.remove(key)

    def add(self, key: str, source: Source, *, size: int | None) -> Stored:
        """Keep what the source gives; see `glancefs.stores.base.Store.add`. Raises StoreFull."""
        self._check_fresh(key)
        data = bytearray()

        def write(part: memoryview) -> None:
            self._promise(key, max(len(data) + len(part), size or 0))
            data.extend(part)

        try:
            self._promise(key, size or 0)
            copied = copy(source, write, size=size)
            with self._lock:
                self._data[key] = bytes(data)
        finally:
            with self._lock:
                self._promised.pop(key, None)
        return Stored(location=Location(store=self.scheme, key=key), size=copied.size, checksum=copied.checksum)

    def _check_fresh(self, key: str) -> None:
        if key not in self._claims or key in self._data:
            raise ValueError(f"{key!r} is no fresh key claimed here")

    def _promise(self, key: str, size: int) -> None:
        """Set room aside for an upload that may become this large. Raises StoreFull."""
        with self._lock:
            others = sum(promised for other, promised in self._promised.items() if other != key)
            if self._capacity is not None and self._used() + others + size > self._capacity:
                raise StoreFull(f"The store {self.scheme!r} has no room for {size} bytes.")
            self._promised[key] = size

    def _used(self) -> int:
        return sum(map(len, self._data.values()))

    def adopt(self, key: str, file: Path, *, checksum: str | None) -> Stored:
        """Refuse: this store does not say `adopts_files`."""
        raise NotImplementedError

    def copy(self, key: str, location: Location, *, checksum: str) -> Stored:
        """Keep the same bytes once more; see `glancefs.stores.base.Store.copy`. Raises DataMissing, StoreFull."""
        self._check_fresh(key)
        data = self._get(location)
        try:
            self._promise(key, len(data))
            with self._lock:
                self._data[key] = data
        finally:
            with self._lock:
                self._promised.pop(key, None)
        return Stored(location=Location(store=self.scheme, key=key), size=len(data), checksum=checksum)

    def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
        """Open the data for reading; see `glancefs.stores.base.Store.open`. Raises DataMissing."""
        data = self._get(location)
        return io.BytesIO(data[start:stop])

    def size(self, location: Location) -> int:
        """Give the number of bytes kept. Raises DataMissing."""
        return len(self._get(location))

    def _get(self, location: Location) -> bytes:
        data = self._data.get(location.key) if location.store == self.scheme else None
        if data is None:
            raise DataMissing(f"The data {location} are not in their store.")
        return data

    def delete(self, location: Location) -> None:
        """Remove the data; data that are not there are fine."""
        if location.store == self.scheme:
            with self._lock:
                self._data.pop(location.key, None)

    def is_claimed(self, location: Location) -> bool:
        """Say whether the claim of this key lasts."""
        return location.store == self.scheme and location.key in self._claims

    def sweep(self, known: Callable[[Collection[Location]], Collection[Location]]) -> Swept:
        """Remove what nobody wants; see `glancefs.stores.base.Store.sweep`. Raises what ``known`` raises."""
        with self._lock:
            keys = set(self._data) - self._claims
        locations = {Location(store=self.scheme, key=key) for key in keys}
        # Claims do not come back, so what is unclaimed here and has no row afterwards will never have one.
        orphans = locations.difference(known(locations)) if locations else locations
        orphans = orphans.difference(known(orphans)) if orphans else orphans
        freed = 0
        with self._lock:
            for location in orphans:
                freed += len(self._data.pop(location.key, b""))
        return Swept(orphans=len(orphans), size=freed)

    def space(self) -> Space | None:
        """Tell the room there is; None without a limit."""
        if self._capacity is None:
            return None
        with self._lock:
            return Space(total=self._capacity, free=max(0, self._capacity - self._used()))

    def close(self) -> None:
        """Do nothing: there are neither connections nor threads."""
