# SPDX-License-Identifier: Apache-2.0
"""The data of one file in another, without passing them through this process where the file system can do that.

Answers for three ways: sharing blocks (ioctl_ficlone(2): btrfs, XFS, bcachefs, NFS 4.2), a further name of the same
file (link(2)), and having the kernel copy (copy_file_range(2)). Holes stay holes. Does not know keys, claims or images.

Threading: pure functions over files; none of them moves a file's position that somebody else uses.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from glancefs.stores.disk import try_lock

_FICLONE: Final = 0x40049409
"""linux/fs.h: ``_IOW(0x94, 9, int)``."""
_PIECE: Final = 1 << 30
"""How many bytes the kernel is asked to copy at once."""
_BUFFER: Final = 1024 * 1024

_WRITE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC

_CANNOT: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.ETXTBSY}
)
"""How file systems say that they share or copy no blocks between these files."""
_CANNOT_LINK: Final = frozenset({errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS})


def share_blocks(source: int, target: int) -> bool:
    """Let an empty file have the other one's blocks until either changes; False where that can't be. Raises OSError."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def put_link(source: Path, target: Path) -> int | None:
    """Put a further name of a file in the place of another file, in one step; give the file, open and locked.

    The lock (flock(2)) is had before there is a new name. None where that can't be, and where somebody else has the
    lock: who that is may hold it for long, so nobody waits. Raises FileNotFoundError, OSError.
    """
    descriptor = os.open(source, _WRITE)
    try:
        if try_lock(descriptor, fcntl.LOCK_EX) and _link(source, target):
            kept, descriptor = descriptor, -1
            return kept
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _link(source: Path, target: Path) -> bool:
    # Named like an upload, so that a sweep takes away what a crash leaves.
    beside = target.with_name(secrets.token_hex(len(target.name) // 2))
    try:
        os.link(source, beside, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    try:
        beside.rename(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    return True


def copy_extents(source: int, target: int, on_progress: Callable[[int], None]) -> None:
    """Copy what is not a hole into an empty file, and give it the same size.

    ``on_progress`` is told up to where the target is written, from time to time. Raises OSError.
    """
    size = os.fstat(source).st_size
    for start, stop in _data_in(source, size):
        position = start
        while position < stop:
            copied = _copy_piece(source, target, position, min(stop - position, _PIECE))
            if not copied:
                # The file became shorter, which whoever asked finds out by its size.
                break
            position += copied
            on_progress(position)
    os.ftruncate(target, min(size, os.fstat(source).st_size))


def _copy_piece(source: int, target: int, position: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, offset_src=position, offset_dst=position)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    data = os.pread(source, min(count, _BUFFER), position)
    return os.pwrite(target, data, position)


def _data_in(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Give where the data of a file begin and end, hole after hole (lseek(2), SEEK_DATA)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position
