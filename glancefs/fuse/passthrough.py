# SPDX-License-Identifier: Apache-2.0
"""Images that the kernel reads by itself: open files of the mount that are passed through to the store's own files.

Such a file is read, mapped and sent without a request, at the speed of the file system below (Linux 6.9, FUSE
passthrough). Data of images never change, so nobody misses what the daemon would have done. Files that are being
written are never passed through: whoever has such a file mapped could change it after it was hashed.

Answers for the kernel's rules: what is passed through of one inode is one backing file, registered once and held as
long as it is open; and an inode is either passed through or in the page cache of the mount, not both at once. Where
the kernel, the machine or the store can't do it, files are opened as they are without it, and the log says so once.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from glancefs.fuse.replies import Replies

_log = logging.getLogger(__name__)

_OPEN: Final = 0x4010E501
"""FUSE_DEV_IOC_BACKING_OPEN of linux/fuse.h."""
_CLOSE: Final = 0x4004E502
"""FUSE_DEV_IOC_BACKING_CLOSE."""
_BACKING: Final = struct.Struct("=iIQ")
"""struct fuse_backing_map: descriptor, flags, padding."""
_NUMBER: Final = struct.Struct("=I")
_NEVER: Final = frozenset({errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ELOOP})
"""What means that another try would fare no better."""
_REASONS: Final = {
    errno.EPERM: "the kernel does not let this process",
    errno.ENOTTY: "the kernel is older than Linux 6.9",
    errno.EOPNOTSUPP: "the kernel was built without",
    errno.ELOOP: "the store's file system lies upon another one",
}


class Way(Enum):
    """How the kernel gets at the bytes of an open file."""

    CACHED = auto()
    """By requests, and keeps them in the page cache of the mount."""
    DIRECT = auto()
    """By a request for each read; goes together with any other way."""
    WRITTEN = auto()
    """As `DIRECT`; nothing is read, so there is one request for each write."""
    BACKED = auto()
    """From the store's file."""


@dataclass(slots=True, kw_only=True)
class _Backing:
    """A file that the kernel has registered for an inode."""

    number: int
    opens: int = 0


class Passthrough:
    """Which way each open file of a mount goes."""

    def __init__(self, *, replies: Replies, is_wanted: bool) -> None:
        self._replies: Final = replies
        self._device = -1
        self._is_on = False
        self._reason: str | None = None
        self._is_told = False
        self.is_wanted: Final = is_wanted and not os.geteuid()
        """Whether it is to be offered to the kernel."""
        if is_wanted and not self.is_wanted:
            self._give_up("only root can have the kernel do it")
        self._backings: Final[dict[int, _Backing]] = {}
        self._cached: Final[Counter[int]] = Counter()
        self._written: Final[Counter[int]] = Counter()
        """By inode, how many open files hand over what is written as it is written."""
        self._ways: Final[dict[int, tuple[int, Way]]] = {}
        self._takes_direct: Final[dict[int, bool]] = {}
        """By device, whether files there can be opened with O_DIRECT."""

    # ---- the mount

    def accept(self, device: int | None) -> None:
        """Find out whether the kernel has taken the offer, once its first request is answered."""
        if not self.is_wanted or device is None:
            return
        if self._replies.trouble is not None:
            self._give_up(self._replies.trouble)
            return
        self._device, self._is_on = device, True
        trial = os.memfd_create("glancefs", os.MFD_CLOEXEC)
        try:
            self._unregister(self._register(trial))
        except OSError as error:
            self._give_up(_REASONS.get(error.errno or 0, str(error)))
        finally:
            os.close(trial)

    def tell(self) -> None:
        """Tell the log who reads; called once the mount is ready, so that who waits for that hears nothing of it."""
        self._is_told = True
        if self._is_on:
            _log.info("the kernel reads images by itself where the store has them as files")
        elif self._reason is not None:
            self._give_up(self._reason)

    # ---- open files

    def enter(self, number: int, ino: int, flags: int, *, is_image: bool, descriptor: int | None) -> Way:
        """Choose the way for a file handle of this number that is being opened with these flags; `leave` has to follow.

        ``descriptor`` is the store's file, complete and never to change, for images that have one. All files of one
        image hold the same bytes, so one that is open already serves those that find the image in another store.
        """
        backing = self._backings.get(ino)
        if backing is None and is_image and descriptor is not None and not self._cached[ino]:
            backing = self._back(ino, descriptor)
        if backing is None:
            way = self._unbacked(ino, flags, is_image=is_image)
        elif is_image and (not flags & os.O_DIRECT or self._is_direct(descriptor)):
            way = Way.BACKED
            backing.opens += 1
            self._replies.promise(number, backing.number)
        else:
            way = Way.DIRECT
        self._ways[number] = ino, way
        return way

    def _unbacked(self, ino: int, flags: int, *, is_image: bool) -> Way:
        """Choose the way for what is not passed through.

        What is only written is handed over from the program's own memory, which spares a copy; and what others read
        meanwhile must then not come from the page cache, which learns nothing of it.
        """
        if is_image:
            way = Way.CACHED
        elif flags & os.O_ACCMODE == os.O_WRONLY and not self._cached[ino]:
            way = Way.WRITTEN
            self._written[ino] += 1
        else:
            way = Way.DIRECT if self._written[ino] else Way.CACHED
        if way is Way.CACHED:
            self._cached[ino] += 1
        return way

    def leave(self, number: int) -> None:
        """Say that the last descriptor of a file handle is closed."""
        ino, way = self._ways.pop(number, (0, Way.DIRECT))
        if way is Way.CACHED:
            _uncount(self._cached, ino)
        elif way is Way.WRITTEN:
            _uncount(self._written, ino)
        elif way is Way.BACKED:
            backing = self._backings[ino]
            backing.opens -= 1
            if not backing.opens:
                del self._backings[ino]
                with suppress(OSError):
                    self._unregister(backing.number)

    def _back(self, ino: int, descriptor: int) -> _Backing | None:
        if not self._is_on:
            return None
        try:
            backing = self._backings[ino] = _Backing(number=self._register(descriptor))
        except OSError as error:
            if error.errno in _NEVER:
                self._give_up(_REASONS.get(error.errno or 0, str(error)))
            return None
        return backing

    def _is_direct(self, descriptor: int | None) -> bool:
        """Whether a file of the store can be opened with O_DIRECT: if not, the kernel's own open of it would fail."""
        if descriptor is None:
            return False
        device = os.fstat(descriptor).st_dev
        if device not in self._takes_direct:
            try:
                os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT))
                self._takes_direct[device] = True
            except OSError:
                self._takes_direct[device] = False
        return self._takes_direct[device]

    def _register(self, descriptor: int) -> int:
        # With bytes instead, fcntl.ioctl would give them back, and not the number.
        return int(fcntl.ioctl(self._device, _OPEN, bytearray(_BACKING.pack(descriptor, 0, 0))))

    def _unregister(self, backing: int) -> None:
        fcntl.ioctl(self._device, _CLOSE, _NUMBER.pack(backing))

    def _give_up(self, reason: str) -> None:
        self._is_on = False
        self._reason = reason
        if self._is_told:
            _log.info("images are read through this process: %s", reason)


def _uncount(counter: Counter[int], ino: int) -> None:
    counter[ino] -= 1
    if not counter[ino]:
        del counter[ino]
