# SPDX-License-Identifier: Apache-2.0
"""Files and folders as a store needs them: what Linux can do and Python's ``os`` cannot, and what refusals mean.

Answers for room set aside in advance, writing back early, locks, making folders durably and walking them, and the
translation of operating system errors. Does not know keys, claims or images.

Threading: nothing here changes once it is made; the calls let go of the interpreter's lock while they wait.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from glancefs.errors import GlancefsError, StoreFull, StoreUnavailable

_log = logging.getLogger(__name__)

_KEEP_SIZE: Final = 1
"""fallocate(2): FALLOC_FL_KEEP_SIZE."""
_START_WRITING: Final = 2
"""sync_file_range(2): SYNC_FILE_RANGE_WRITE."""

_BATCH: Final = 500
"""How many names others are asked about at once."""

_PAUSES: Final = (0.01, 0.05, 0.2)
"""Seconds after which a folder is tried again that was refused for lack of room where there is some."""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ENODEV})


class Disk:
    """The two system calls that Python does not offer."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fallocate = libc.fallocate
        self._fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        self._sync_file_range = libc.sync_file_range
        self._sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

    def allocate(self, descriptor: int, size: int) -> bool:
        """Set room aside for a file, leaving its size; False where the file system can't. Raises OSError: no room.

        Not posix_fallocate(3): where the file system can't, that writes into every block, which costs a pass.
        """
        while self._fallocate(descriptor, _KEEP_SIZE, 0, size):
            code = ctypes.get_errno()
            if code in _NOT_SUPPORTED:
                return False
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))
        return True

    def start_writing(self, descriptor: int, start: int, stop: int) -> None:
        """Have these bytes written back from now on, without waiting; a hint, so errors wait for the sync."""
        self._sync_file_range(descriptor, start, stop - start, _START_WRITING)


class border:  # noqa: N801 - used as if it were made by contextlib, which takes several times as long
    """Translate what the operating system raises while a store is ``doing`` something.

    Raises StoreFull, StoreUnavailable. The operator gets all of it in the log, the caller a sentence without paths.
    """

    __slots__ = ("_doing", "_store")

    def __init__(self, store: str, doing: str) -> None:
        self._store = store
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise translated(error, store=self._store, doing=self._doing) from error


def translated(error: OSError, *, store: str, doing: str) -> GlancefsError:
    """Give the error of our tree for one of the operating system's."""
    if error.errno in _NO_ROOM:
        return StoreFull(f"The store {store!r} has no room for this.")
    _log.error("Store %r failed at %s: %s", store, doing, error)
    return StoreUnavailable(f"The store {store!r} failed at {doing}: {error.strerror or error}.")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, sync: bool) -> None:
    """Make a folder that only its owner may enter, and those above it, durably; one that is there is fine."""
    try:
        _make_one(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folder(path.parent, sync=sync)
        make_folder(path, sync=sync)
        return
    if sync:
        sync_folder(path.parent)


def _make_one(path: Path) -> None:
    for pause in _PAUSES:
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            # ext4 without a journal was seen to refuse a folder, and nothing else, with all the room there is.
            if error.errno != errno.ENOSPC or not _has_room(path.parent):
                raise
            time.sleep(pause)
        else:
            return
    path.mkdir(mode=0o700)


def _has_room(folder: Path) -> bool:
    status = os.statvfs(folder)
    return bool(status.f_bavail and status.f_favail)


@dataclass(slots=True)
class Tally:
    """How many files were removed, and the bytes that this freed."""

    files: int = 0
    size: int = 0

    def count(self, size: int | None) -> None:
        """Count one that was removed; None is none."""
        if size is not None:
            self.files += 1
            self.size += size


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock of this kind (flock(2)) if it can be had at once; closing the descriptor gives it back."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file, give its descriptor, and close it."""
    with closing_descriptor(os.open(path, flags)) as descriptor:
        yield descriptor


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(folder: Path, pattern: re.Pattern[str], *, folders: bool = False) -> Iterator[str]:
    """Walk the names in a folder that are ours; whatever else lies there is somebody else's."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            is_wanted = entry.is_dir(follow_symlinks=False) if folders else entry.is_file(follow_symlinks=False)
            if is_wanted and pattern.fullmatch(entry.name):
                yield entry.name


def batches(names: Iterator[str]) -> Iterator[list[str]]:
    """Give names in lists of a size that others can be asked about at once."""
    while batch := list(islice(names, _BATCH)):
        yield batch
