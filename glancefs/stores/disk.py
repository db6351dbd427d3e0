# SPDX-License-Identifier: Apache-2.0
"""What Linux can do with files and Python's ``os`` cannot, and what its refusals mean to a store.

Answers for room set aside in advance, writing back early, locks, making folders durably, and the translation of
operating system errors. Does not know keys, claims or images.

Threading: nothing here changes once it is made; the calls let go of the interpreter's lock while they wait.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from glancefs.errors import GlancefsError, StoreFull, StoreUnavailable

_log = logging.getLogger(__name__)

_KEEP_SIZE: Final = 1
"""fallocate(2): FALLOC_FL_KEEP_SIZE."""
_START_WRITING: Final = 2
"""sync_file_range(2): SYNC_FILE_RANGE_WRITE."""

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


@contextmanager
def border(store: str, doing: str) -> Iterator[None]:
    """Translate what the operating system raises while a store is ``doing`` something.

    Raises StoreFull, StoreUnavailable. The operator gets all of it in the log, the caller a sentence without paths.
    """
    try:
        yield
    except OSError as error:
        raise translated(error, store=store, doing=doing) from error


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
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folder(path.parent, sync=sync)
        make_folder(path, sync=sync)
        return
    if sync:
        sync_folder(path.parent)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock of this kind (flock(2)) if it can be had at once; closing the descriptor gives it back."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def names_in(folder: Path, pattern: re.Pattern[str], *, folders: bool = False) -> Iterator[str]:
    """Walk the names of files, or of ``folders``, in a folder that match; what else lies there is somebody else's."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            is_wanted = entry.is_dir(follow_symlinks=False) if folders else entry.is_file(follow_symlinks=False)
            if is_wanted and pattern.fullmatch(entry.name):
                yield entry.name


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file, for as long as the context lasts. Raises OSError."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
