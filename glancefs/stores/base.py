# SPDX-License-Identifier: Apache-2.0
"""What every store promises: the bytes of images, under keys that nobody outside chooses.

Answers for the `Store` protocol and the values it speaks in. Stores know nothing of names, owners or status, and not of
each other; `tests/contract` runs one suite over all of them.

Threading: every method of a store may be called from many threads at once; what `open` returns belongs to one caller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeGuard

from glancefs.model import Location


class Source(Protocol):
    """Where the bytes of an upload come from: binary files, sockets' bodies, `io.BytesIO`."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer from its start, possibly in part; give the number of bytes, 0 at the end and only there.

        May raise any error of the tree: the store then leaves nothing behind and lets it pass through.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """In what a store differs from others, as data: nobody asks for a store's class or name."""

    real_files: bool = False
    """Whether `open(location)` gives a real file, whose ``fileno`` serves pread, sendfile and mmap."""

    adopts_files: bool = False
    """Whether `adopt` takes a local file over by renaming it, without copying its bytes."""

    copies_data: bool = False
    """Whether `copy` makes data anew inside the store, without passing them through this process."""

    is_persistent: bool = True
    """Whether the bytes outlive the process."""

    is_remote: bool = False
    """Whether the engine is another machine's business, and may come back by itself when it does not answer."""

    knows_room: bool = True
    """Whether a declared size that has no room is refused before the first byte."""

    keeps_open_data: bool = True
    """Whether data that another process deletes stay readable for those who have them open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of an upload."""

    location: Location
    size: int
    checksum: str
    """``sha256:`` and 64 lower-case hex digits, of the bytes that were stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Room in a store, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep removed."""

    uploads: int = 0
    """Abandoned uploads that were never complete."""
    orphans: int = 0
    """Complete data to which no image points."""
    size: int = 0
    """Bytes freed by all of it."""
    requeued: int = 0
    """Images that a dead process was saving, which wait for their data again; stores know nothing of these."""
    staged: int = 0
    """Files of dead mounts that were never images, and that nobody came back for; stores know nothing of these."""


class Store(Protocol):
    """Keeps the bytes of images."""

    @property
    def scheme(self) -> str:
        """The name under which this store is configured, and the scheme of its locations (``file``, ``swift``, …)."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """In what this store differs from others."""
        ...

    def claim(self) -> AbstractContextManager[str]:
        """Take a new key, which no sweep of any process touches before the context ends.

        The context must last until the registry's row that names the key is committed. Leaving it removes an upload
        that was begun and not completed under the key; complete data stay (a sweep removes them if no row names them).
        A process that dies gives up its claims: at once, or after the grace that the store documents.
        """
        ...

    def add(self, key: str, source: Source, *, size: int | None) -> Stored:
        """Keep everything that ``source`` gives, durably, under a claimed key; compute its checksum on the way.

        With ``size`` the room is reserved before the first byte is asked for. The data are complete and synced when
        this returns, and not visible under the key before. On any error, also one of ``source``, nothing stays.

        Raises StoreFull when there is no room, StoreUnavailable when the engine fails.
        """
        ...

    def adopt(self, key: str, file: Path, *, checksum: str | None) -> Stored:
        """Take a complete local file over, durably, under a claimed key; holes stay holes.

        ``file`` must lie on the store's own file system (below `staging_folder`); it is gone from its place afterwards.
        ``checksum`` spares reading the file where the caller knows it. Only for stores that say `adopts_files`.

        Raises StoreFull, StoreUnavailable.
        """
        ...

    @property
    def staging_folder(self) -> Path | None:
        """The folder in which files to `adopt` are made; None for stores that adopt none."""
        ...

    def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
        """Open the data for reading: exactly the bytes from ``start`` up to, not including, ``stop`` (None: the end).

        The whole of it (``start`` 0, ``stop`` None) is a real file where `capabilities.real_files`. Data that this
        process deletes while they are open go on to be readable; those that another one deletes, where
        `capabilities.keeps_open_data` says so: elsewhere reading on raises DataMissing. What is ``seekable`` can be
        moved within the whole of the data. Raises DataMissing, StoreUnavailable.
        """
        ...

    def size(self, location: Location) -> int:
        """Give the number of bytes kept. Raises DataMissing, StoreUnavailable."""
        ...

    def delete(self, location: Location) -> None:
        """Remove the data; data that are not there are fine. Raises StoreUnavailable."""
        ...

    def is_claimed(self, location: Location) -> bool:
        """Say whether a living process holds the claim of this key."""
        ...

    def sweep(self, known: Callable[[Collection[Location]], Collection[Location]]) -> Swept:
        """Remove what no living process claims and no row names: abandoned uploads, and data outside ``known``.

        ``known`` tells which of some locations are named by a row; it is asked again under protection right before
        anything is removed, so that an upload that completes meanwhile is safe. Safe beside any other process.
        """
        ...

    def space(self) -> Space | None:
        """Tell the room there is; None where the engine does not say. Raises StoreUnavailable."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; may be called twice."""
        ...


class LocalStore(Store, Protocol):
    """A store that says `real_files`."""

    def allocated(self, location: Location) -> int:
        """Give the bytes that the data take on the disk, holes left out. Raises DataMissing, StoreUnavailable."""
        ...

    def allocated_by_key(self, keys: Iterable[str]) -> Sequence[int | None]:
        """Give the same of many keys of this store's, as its locations have them; None for what can't be told."""
        ...


def has_real_files(store: Store) -> TypeGuard[LocalStore]:
    """Say whether a store keeps its data in real files."""
    return store.capabilities.real_files


def allocated_at(stores: Mapping[str, Store], locations: Sequence[str]) -> Sequence[int | None]:
    """Give the bytes that data take on local disks, by the texts of their locations; None where nobody can tell."""
    found: dict[str, int | None] = {}
    for name, store in stores.items():
        if has_real_files(store):
            prefix = f"{name}:"
            here = [text for text in locations if text.startswith(prefix)]
            sizes = store.allocated_by_key([text[len(prefix) :] for text in here])
            if len(here) == len(locations):
                return sizes
            found.update(zip(here, sizes, strict=True))
    return [found.get(text) for text in locations]


class AdoptingStore(Store, Protocol):
    """A store that says `adopts_files`."""

    @property
    def staging_folder(self) -> Path:
        """The folder in which files to `adopt` are made."""
        ...

    def claim_file(self, file: Path) -> AbstractContextManager[str]:
        """Take a new key for a complete local file, as `claim` does, which makes no other file for it.

        The file, which must lie as `adopt` demands, is in `staging_folder` under its key meanwhile, to be adopted from
        there. Unless that has happened, leaving the context removes it. Raises StoreUnavailable.
        """
        ...

    def claim_unnamed(self, descriptor: int) -> AbstractContextManager[str]:
        """Take a new key for a complete file that is open and has no name (open(2), O_TMPFILE), as `claim_file` does.

        Raises StoreUnavailable.
        """
        ...


class CopyingStore(Store, Protocol):
    """A store that says `copies_data`."""

    def copy(self, key: str, location: Location, *, checksum: str) -> Stored:
        """Keep data of this store once more, durably, under a claimed key; blocks may be shared, holes stay holes.

        ``checksum`` is that of the data; it is believed. Neither copy minds what becomes of the other. Raises
        DataMissing, StoreFull, StoreUnavailable; then nothing stays.
        """
        ...


def copies_data(store: Store) -> TypeGuard[CopyingStore]:
    """Say whether a store copies its data by means of its own."""
    return store.capabilities.copies_data
