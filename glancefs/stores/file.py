# SPDX-License-Identifier: Apache-2.0
"""Images as files in one folder of a local file system.

::

    PATH/incoming/KEY     uploads under way, and files staged for `adopt`
    PATH/ab/KEY           complete data; ab are the first two digits of the key
    PATH/registry         whose images these are (`glancefs.registries.base.Registry.identity`)

Answers for the keys (random, never anybody's input), for durability, and for claims: a claim is a flock(2) of the file
itself. It follows the inode through the rename out of ``incoming``, every process sees it, and the kernel ends it with
the process. A sweep removes only what it has locked itself, and asks once more under that lock whether a row names it;
since whoever uploads keeps the lock until the row is committed, there is no moment at which wanted data look abandoned.

One level of folders: a million images are 4,000 names in each, which is nothing to ext4, xfs or btrfs, and a new
image need not make a folder of its own first. Does not know names, owners or status.

Threading: every method may be called from many threads and processes; a key belongs to the thread that claimed it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, cast

from glancefs.errors import StoreFull
from glancefs.model import Location
from glancefs.stores.base import Capabilities, Source, Space, Stored, Swept
from glancefs.stores.cloning import copy_extents, put_link, share_blocks
from glancefs.stores.disk import (
    Disk,
    Tally,
    batches,
    border,
    closing_descriptor,
    make_folder,
    names_in,
    opened,
    sync_folder,
    try_lock,
)
from glancefs.stores.file_claims import WRITE, Claim, claim_of_file, claim_of_unnamed, new_claim
from glancefs.stores.owner import Owner
from glancefs.stores.pipeline import copy
from glancefs.stores.places import FOLDER, KEY, Places, missing
from glancefs.stores.reading import FileRange, checksum_of

_log = logging.getLogger(__name__)

_ALLOCATE_FROM: Final = 1024 * 1024
"""Below this size, looking whether there is room costs less than setting it aside."""
_WRITE_BACK_EVERY: Final = 8 * 1024 * 1024
"""After how many bytes the disk is told to begin, so that the sync at the end finds little to do."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(slots=True, kw_only=True, eq=False)
class _Upload:
    """A running upload: where its bytes go, and how many are still to be expected."""

    descriptor: int
    size: int
    written: int = 0
    started: int = 0
    """Up to where the disk was told to begin."""


class FileStore:
    """Keeps images as files below ``path``, which is made when it is first needed.

    ``sync=False`` gives up durability for speed: an image may be lost or damaged by a power cut after it was answered.
    ``owner`` is the registry whose images these are; where the folder keeps those of another one, claims and sweeps
    raise ConfigError. None does not ask.
    """

    capabilities: Final = Capabilities(real_files=True, adopts_files=True, copies_data=True)

    def __init__(self, *, path: Path, scheme: str = "file", sync: bool = True, owner: Owner | None = None) -> None:
        self.scheme: Final = scheme
        self._places: Final = Places(path.absolute(), scheme=scheme, owner=owner, sync=sync)
        self._sync: Final = sync
        self._disk: Final = Disk()
        self._claims: Final[dict[str, Claim]] = {}
        self._uploads: Final[set[_Upload]] = set()
        self._uploads_lock: Final = Lock()
        self._durable_folders: Final[set[Path]] = set()

    @property
    def staging_folder(self) -> Path:
        """The folder of uploads: claim a key, write the file of that name in here, and `adopt` it."""
        return self._places.incoming_folder

    # Claims

    @contextmanager
    def claim(self) -> Iterator[str]:
        """Take a new key; see `glancefs.stores.base.Store.claim`. Its file lies empty in `staging_folder` meanwhile."""
        with self._border("beginning an upload"):
            claim = new_claim(self._places)
        with self._held(claim):
            yield claim.key

    @contextmanager
    def claim_file(self, file: Path) -> Iterator[str]:
        """Take a new key for a local file; see `glancefs.stores.base.AdoptingStore.claim_file`."""
        # This spares a file: ext4 looks at each that was removed in the last seconds before it makes another one.
        with self._border("beginning an upload"):
            claim = claim_of_file(self._places, file)
        with self._held(claim):
            yield claim.key

    @contextmanager
    def claim_unnamed(self, descriptor: int) -> Iterator[str]:
        """Take a new key for an open file; see `glancefs.stores.base.AdoptingStore.claim_unnamed`."""
        with self._border("beginning an upload"):
            claim = claim_of_unnamed(self._places, descriptor)
        with self._held(claim):
            yield claim.key

    @contextmanager
    def _held(self, claim: Claim) -> Iterator[None]:
        self._claims[claim.key] = claim
        try:
            yield
        finally:
            del self._claims[claim.key]
            self._end(claim)

    def _end(self, claim: Claim) -> None:
        try:
            if not claim.is_complete:
                self._places.incoming(claim.key).unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("Store %r left an abandoned upload for the next sweep: %s", self.scheme, error)
        finally:
            os.close(claim.descriptor)

    def _use(self, key: str) -> Claim:
        claim = self._claims.get(key)
        if claim is None or claim.is_used:
            raise ValueError(f"{key!r} is no fresh key claimed here")
        claim.is_used = True
        return claim

    def is_claimed(self, location: Location) -> bool:
        """Say whether a living process holds the claim of this key."""
        if not self._places.is_one(location):
            return False
        # Files move from the first place to the second only, so looking in this order misses none.
        with self._border("looking for an upload"):
            self._places.check_root()
            for path in (self._places.incoming(location.key), self._places.data(location.key)):
                with suppress(FileNotFoundError), opened(path, _READ) as descriptor:
                    return not try_lock(descriptor, fcntl.LOCK_SH)
        return False

    # Data on their way in

    def add(self, key: str, source: Source, *, size: int | None) -> Stored:
        """Keep what the source gives; see `glancefs.stores.base.Store.add`. Raises StoreFull, StoreUnavailable."""
        claim = self._use(key)
        upload = _Upload(descriptor=claim.descriptor, size=size or 0)
        try:
            self._make_room(upload)
            copied = copy(source, lambda part: self._write(upload, part), size=size)
            with self._border("completing an upload"):
                if copied.size < upload.size:
                    # Gives back what was set aside and is not used: those blocks lie behind the end of the file.
                    os.ftruncate(claim.descriptor, copied.size)
                self._publish(claim)
        except BaseException:
            self._withdraw(claim)
            with suppress(OSError):
                os.ftruncate(claim.descriptor, 0)
            raise
        finally:
            with self._uploads_lock:
                self._uploads.discard(upload)
        return Stored(location=self._places.location(key), size=copied.size, checksum=copied.checksum)

    def adopt(self, key: str, file: Path, *, checksum: str | None) -> Stored:
        """Take a file over; see `glancefs.stores.base.Store.adopt`. Raises StoreFull, StoreUnavailable."""
        claim = self._use(key)
        try:
            with self._border("adopting a file"):
                self._take_over(claim, file)
                os.fchmod(claim.descriptor, 0o600)
                if checksum is None:
                    checksum = checksum_of(claim.descriptor)
                size = os.fstat(claim.descriptor).st_size
                self._publish(claim)
        except BaseException:
            self._withdraw(claim)
            raise
        return Stored(location=self._places.location(key), size=size, checksum=checksum)

    def copy(self, key: str, location: Location, *, checksum: str) -> Stored:
        """Keep data once more; see `glancefs.stores.base.Store.copy`. Raises DataMissing, StoreFull, StoreUnavailable.

        Where blocks can't be shared, both keys name one file: its data never change, and deleting takes a name away.
        """
        claim = self._use(key)
        try:
            with self._border("copying data"), closing_descriptor(self._open_data(location)) as source:
                size = os.fstat(source).st_size
                if not share_blocks(source, claim.descriptor) and not self._link(claim, location):
                    self._copy_bytes(claim, source, size)
                self._publish(claim)
        except BaseException:
            self._withdraw(claim)
            raise
        return Stored(location=self._places.location(key), size=size, checksum=checksum)

    def _link(self, claim: Claim, location: Location) -> bool:
        """Give data the claimed name too. False where that can't be.

        The claim then is a lock of the data themselves, which their sweep respects too.
        """
        try:
            descriptor = put_link(self._places.data(location.key), self._places.incoming(claim.key))
        except FileNotFoundError:
            raise missing(location) from None
        if descriptor is not None:
            os.close(claim.descriptor)
            claim.descriptor = descriptor
        return descriptor is not None

    def _copy_bytes(self, claim: Claim, source: int, size: int) -> None:
        # What is allocated of a sparse file is less than its size, and no more is needed.
        needed = min(size, os.fstat(source).st_blocks * 512)
        upload = _Upload(descriptor=claim.descriptor, size=needed)
        try:
            self._make_room(upload, has_holes=needed < size)
            copy_extents(source, claim.descriptor, partial(self._wrote, upload))
        finally:
            with self._uploads_lock:
                self._uploads.discard(upload)

    def _wrote(self, upload: _Upload, position: int) -> None:
        upload.written = position
        if self._sync:
            self._disk.start_writing(upload.descriptor, upload.started, position)
            upload.started = position

    def _take_over(self, claim: Claim, file: Path) -> None:
        """Put a file in the place of the claimed one, locked before it has its name; the claimed one itself is fine."""
        if claim.is_file and file.name == claim.key and file.parent == self._places.incoming_folder:
            return
        descriptor = os.open(file, WRITE)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{file} is no regular file")
            if os.path.samestat(status, os.fstat(claim.descriptor)):
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.rename(self._places.incoming(claim.key))
            claim.descriptor, descriptor = descriptor, claim.descriptor
        finally:
            os.close(descriptor)

    def _make_room(self, upload: _Upload, *, has_holes: bool = False) -> None:
        """Make sure of room for all that is expected; where the file system can't, by counting what was promised.

        Room that is set aside would fill holes.
        """
        with self._border("making room"):
            if not has_holes and upload.size >= _ALLOCATE_FROM and self._disk.allocate(upload.descriptor, upload.size):
                return
            if not upload.size:
                return
            with self._uploads_lock:
                promised = sum(max(other.size - other.written, 0) for other in self._uploads)
                if self._free_and_total()[0] - promised < upload.size:
                    raise StoreFull(f"The store {self.scheme!r} has no room for {upload.size} bytes.")
                self._uploads.add(upload)

    def _write(self, upload: _Upload, part: memoryview) -> None:
        with self._border("writing"):
            while part:
                written = os.write(upload.descriptor, part)
                upload.written += written
                part = part[written:]
            if self._sync and upload.written - upload.started >= _WRITE_BACK_EVERY:
                self._disk.start_writing(upload.descriptor, upload.started, upload.written)
                upload.started = upload.written

    def _publish(self, claim: Claim) -> None:
        """Give complete data their place, durably: bytes first, then the name, then the folder that holds the name."""
        if self._sync:
            os.fdatasync(claim.descriptor)
        path = self._places.data(claim.key)
        folder = path.parent
        try:
            os.rename(self._places.incoming(claim.key), path)  # noqa: PTH104 - pathlib takes as long as the system
        except FileNotFoundError:
            make_folder(folder, sync=False)
            self._places.incoming(claim.key).rename(path)
        claim.is_complete = True
        if not self._sync:
            return
        sync_folder(folder)
        # Whichever process made the folder may not have come this far.
        if folder not in self._durable_folders:
            sync_folder(self._places.path)
            self._durable_folders.add(folder)

    def _withdraw(self, claim: Claim) -> None:
        """Take complete data out of sight again, back to where the end of the claim removes them."""
        if claim.is_complete:
            with suppress(OSError):
                self._places.data(claim.key).rename(self._places.incoming(claim.key))
                claim.is_complete = False

    # Data that are there

    def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
        """Open the data for reading; see `glancefs.stores.base.Store.open`. Raises DataMissing, StoreUnavailable."""
        with self._border("opening data"):
            descriptor = self._open_data(location)
        if not start and stop is None:
            return cast("BinaryIO", io.FileIO(descriptor, "rb"))
        return cast("BinaryIO", FileRange(descriptor, start=start, stop=stop))

    def _open_data(self, location: Location) -> int:
        self._places.check(location)
        try:
            descriptor = os.open(self._places.data(location.key), _READ)
        except OSError as error:
            # ELOOP: open(2) tells so that a symbolic link, which is not followed, lies in the place of the data.
            if error.errno in {errno.ENOENT, errno.ELOOP}:
                self._places.check_root()
                raise missing(location) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise missing(location)
        return descriptor

    def size(self, location: Location) -> int:
        """Give the number of bytes kept. Raises DataMissing, StoreUnavailable."""
        return self._places.status(location).st_size

    def allocated(self, location: Location) -> int:
        """Give the bytes that the data take on the disk, holes left out. Raises DataMissing, StoreUnavailable."""
        return self._places.status(location).st_blocks * 512

    def allocated_by_key(self, keys: Iterable[str]) -> Sequence[int | None]:
        """Give the same of many; see `glancefs.stores.base.LocalStore.allocated_by_key`."""
        return self._places.allocated(keys)

    def delete(self, location: Location) -> None:
        """Remove the data; data that are not there are fine. Raises StoreUnavailable."""
        if self._places.is_one(location):
            with self._border("removing data"), suppress(FileNotFoundError):
                self._places.data(location.key).unlink()

    def space(self) -> Space:
        """Tell the room there is for others than root. Raises StoreUnavailable."""
        with self._border("looking at the disk"):
            free, total = self._free_and_total()
        return Space(total=total, free=free)

    def close(self) -> None:
        """Do nothing: there are neither connections nor threads."""

    def _free_and_total(self) -> tuple[int, int]:
        self._places.check_root()
        try:
            status = os.statvfs(self._places.path)
        except FileNotFoundError:
            make_folder(self._places.path, sync=self._sync)
            status = os.statvfs(self._places.path)
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    # Sweeping

    def sweep(self, known: Callable[[Collection[Location]], Collection[Location]]) -> Swept:
        """Remove what nobody wants; see `glancefs.stores.base.Store.sweep`. Raises StoreUnavailable, as ``known`` does.

        Looks at the files one folder after the other and holds no more than a batch of their names.
        """
        with self._border("sweeping"):
            self._places.check_root()
            self._places.check_owner()
            uploads = Tally()
            for key in names_in(self._places.incoming_folder, KEY):
                uploads.count(self._remove_unclaimed(self._places.incoming(key), lambda: True))
            orphans = Tally()
            folders = names_in(self._places.path, FOLDER, folders=True)
            for keys in batches(key for folder in folders for key in names_in(self._places.path / folder, KEY)):
                self._sweep_keys(keys, known, orphans)
        return Swept(uploads=uploads.files, orphans=orphans.files, size=uploads.size + orphans.size)

    def _sweep_keys(
        self, keys: list[str], known: Callable[[Collection[Location]], Collection[Location]], orphans: Tally
    ) -> None:
        locations = [self._places.location(key) for key in keys]
        for location in set(locations).difference(known(locations)):
            orphans.count(
                # What was said before the lock was had is old: a claim may have ended with a row in between.
                self._remove_unclaimed(self._places.data(location.key), partial(_is_unknown, location, known))
            )

    def _remove_unclaimed(self, path: Path, is_unwanted: Callable[[], bool]) -> int | None:
        """Remove a file if nobody claims it and it is unwanted even under our lock. Gives the bytes freed, or None."""
        try:
            # Open for writing: NFS grants exclusive locks to nobody else.
            with opened(path, WRITE) as descriptor:
                if not try_lock(descriptor, fcntl.LOCK_EX):
                    return None
                status = os.fstat(descriptor)
                # An upload may have been completed, and have left this place, before we had the lock.
                if not os.path.samestat(status, path.lstat()) or not is_unwanted():
                    return None
                path.unlink()
                # What has another name still is needed for that, and freed with the last one.
                return status.st_blocks * 512 if status.st_nlink == 1 else 0
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("Store %r can't sweep %s: %s", self.scheme, path, error)
            return None

    def _border(self, doing: str) -> AbstractContextManager[None]:
        return border(self.scheme, doing)


def _is_unknown(location: Location, known: Callable[[Collection[Location]], Collection[Location]]) -> bool:
    return location not in known([location])
