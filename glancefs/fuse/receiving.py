# SPDX-License-Identifier: Apache-2.0
"""Requests that are answered at once, and bytes that programs write, taken into memory that is kept.

pyfuse3 has libfuse copy each request into one buffer, holds the interpreter's lock meanwhile, copies what is written
once more, and begins a task that answers. For a piece of 1 MiB that is more work than writing it down. So the function
of libfuse by which pyfuse3 receives requests is replaced, as `glancefs.fuse.replies` replaces two others: a request is
received into memory of its own, without the lock and so that the bytes begin where a page does. Bytes for an open file
that has been entered here go to whoever takes them, with no copy.

A small file is made by five requests, of which three wait for nothing: to look for a name that is known to be free, to
write, and to let go. These are answered where they are received, since a task for each takes several times as long as
its answer. Anything else goes the ordinary way, and so does what can't be answered at this moment.

Answers for the form of the requests and answers of linux/fuse.h that this needs. Does not know files. Where it can't be
done (another libfuse, another machine), everything goes the ordinary way.

Threading: belongs to the loop's thread; takers must not wait.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import pyfuse3

from glancefs.fuse.calls import Call

_log = logging.getLogger(__name__)

_HEADER: Final = struct.Struct("=IIQQIIIHH")
"""struct fuse_in_header: length, opcode, unique, inode, user, group, task, …"""
_WRITING: Final = struct.Struct("=QQIIQII")
"""struct fuse_write_in: file handle, offset, size, …"""
_RELEASING: Final = struct.Struct("=Q")
"""The beginning of struct fuse_release_in: file handle."""
_LOOKUP: Final = 1
_WRITE: Final = 16
_RELEASE: Final = 18
_DONE: Final = struct.Struct("=IiQ")
"""struct fuse_out_header: length, error, unique."""
_WRITTEN: Final = struct.Struct("=IiQII")
"""The same and struct fuse_write_out: size, padding."""
_ABSENT: Final = struct.Struct("=IiQ16xQ8xI4x88x")
"""The same and struct fuse_entry_out of inode 0: seconds, and nanoseconds, for which nothing is there."""
_AT_ONCE: Final = 16
"""How many are answered before others have their turn at the loop."""
_BRIEF: Final = 1 << 16
"""In bytes: the largest request after which they still wait; to copy more takes longer than their turn."""
_PAGE: Final = 4096
_ROOM: Final = (1 << 20) + _PAGE
"""In bytes: what libfuse takes for the largest request, and no less than the kernel wants to have."""
_MALLOCED: Final = 2 * _ROOM
"""In bytes: how much memory libfuse's own buffer has where this module makes it; more than any libfuse of today."""

Take = Callable[[int, memoryview, Callable[[], None]], bool]
"""Takes bytes at an offset, which nobody else will change, and calls what it is given once they count as written.

False where it does not take them; then it calls nothing.
"""

Release = Callable[[], bool]
"""Lets go of an open file. False where that has to wait; then it does nothing."""

Absent = Callable[[int, bytes, int], float | None]
"""Gives for how many seconds the kernel may take a name in a folder (its inode) for free, when a task asks.

None where that is not known without waiting, or has to be looked at more closely.
"""


class Buffer(ctypes.Structure):
    """The beginning of struct fuse_buf of libfuse's fuse_common.h, the same since 3.0."""

    _fields_ = (("size", ctypes.c_size_t), ("flags", ctypes.c_int), ("place", ctypes.c_void_p))


_UNKNOWN: Final = (None, None)
_Receive: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Buffer))


class Receiving:
    """The requests of this process' mount, within `changed`."""

    def __init__(self) -> None:
        """Find the place."""
        self._files: Final[dict[int, tuple[Take | None, Release]]] = {}
        self._absent: Absent | None = None
        self._device = -1
        self._room: bytes | None = None
        self._place = 0
        self._start = 0
        self.trouble: str | None = None
        """Why everything goes the ordinary way; unset where it does not."""
        try:
            self._call = Call.find(ctypes.CDLL(pyfuse3.__file__), "fuse_session_receive_buf")
            self._ordinary = _Receive(self._call.address)
            # Has to live as long as something may call it.
            self._thunk = _Receive(self.receive)
            self._find_functions()
        except (LookupError, OSError, MemoryError, AttributeError) as error:
            self.trouble = str(error)

    def _find_functions(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._read = library.read
        self._read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
        self._read.restype = ctypes.c_ssize_t
        self._allocate = library.malloc
        self._allocate.argtypes = (ctypes.c_size_t,)
        self._allocate.restype = ctypes.c_void_p
        # As the interpreter's own reading does: bytes are made empty, and filled before anybody sees them.
        self._make = ctypes.pythonapi.PyBytes_FromStringAndSize
        self._make.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)
        self._make.restype = ctypes.py_object
        self._place_of = ctypes.pythonapi.PyBytes_AsString
        self._place_of.argtypes = (ctypes.py_object,)
        self._place_of.restype = ctypes.c_void_p

    @contextmanager
    def changed(self, device: int | None) -> Iterator[None]:
        """Receive so, where that can be done, what comes through the device of a mount."""
        if device is None or self.trouble is not None:
            yield
            return
        self._device = device
        # What has been answered at once is followed by a look for more.
        os.set_blocking(device, False)
        try:
            self._call.replace(ctypes.cast(self._thunk, ctypes.c_void_p).value or 0)
        except OSError as error:
            self.trouble = str(error)
        try:
            yield
        finally:
            with suppress(OSError):
                self._call.restore()

    def enter(self, number: int, *, take: Take | None, release: Release) -> None:
        """Have what is written through a file handle of this number taken, and its end told, until `leave`."""
        self._files[number] = (take, release)

    def leave(self, number: int) -> None:
        """Have it taken no more; a number that was never entered is fine."""
        self._files.pop(number, None)

    def ask(self, absent: Absent) -> None:
        """Have somebody asked for names that are free."""
        self._absent = absent

    def tell(self) -> None:
        """Tell the log where it can't be done."""
        if self.trouble is not None:
            _log.info("what is written is received by libfuse: %s", self.trouble)

    # ---- called by pyfuse3: whatever happens, it gets what it asked for

    def receive(self, session: int, buffer: Any) -> int:  # noqa: ANN401 - a pointer has no type that can be named
        """Give the size of the next request, which is in the buffer; or -EINTR where there is none to be answered."""
        if self.trouble is not None:
            return self._received_ordinarily(session, buffer)
        for _ in range(_AT_ONCE):
            if self._room is None:
                self._make_room()
            got = int(self._read(self._device, self._place, _ROOM))
            if got <= 0:
                return self._not_received(session, buffer)
            if not self._is_answered(got):
                return self._hand_on(buffer.contents, got)
            if got > _BRIEF:
                break
        # pyfuse3 then looks for the next one.
        return -errno.EINTR

    def _make_room(self) -> None:
        self._room = self._make(None, _ROOM + _PAGE)
        place = int(self._place_of(self._room))
        # The bytes begin with a page: the kernel copies page by page, and what lies across two in two pieces.
        self._start = -(place + _HEADER.size + _WRITING.size) % _PAGE
        self._place = place + self._start

    def _not_received(self, session: int, buffer: Any) -> int:  # noqa: ANN401 - as above
        code = ctypes.get_errno()
        if code in {errno.EINTR, errno.EAGAIN, errno.ENOENT}:
            # ENOENT: who asked has given up.
            return -errno.EINTR
        if code == errno.EINVAL:
            self.trouble = "requests are larger than was foreseen"
        # Such as the end of the mount, of which libfuse takes note.
        return self._received_ordinarily(session, buffer)

    def _received_ordinarily(self, session: int, buffer: Any) -> int:  # noqa: ANN401 - as above
        got = int(self._ordinary(session, buffer))
        return -errno.EINTR if got == -errno.EAGAIN else got

    def _is_answered(self, got: int) -> bool:
        room = self._room
        if room is None or got < _HEADER.size:
            return False
        _, opcode, unique, inode, _, _, task, *_ = _HEADER.unpack_from(room, self._start)
        try:
            if opcode == _WRITE:
                return self._is_taken(room, unique)
            if opcode == _RELEASE:
                return self._is_released(room, unique)
            if opcode == _LOOKUP and self._absent is not None:
                end = self._start + got - 1
                return self._is_absent(self._absent, unique, inode, room[self._start + _HEADER.size : end], task)
        except Exception:  # noqa: BLE001 - nothing may pass to C; the ordinary way meets with it again, and tells
            _log.debug("a request goes the ordinary way", exc_info=True)
        return False

    def _is_taken(self, room: bytes, unique: int) -> bool:
        start = self._start + _HEADER.size
        number, offset, size, *_ = _WRITING.unpack_from(room, start)
        take, _ = self._files.get(number, _UNKNOWN)
        start += _WRITING.size
        if take is None or not take(offset, memoryview(room)[start : start + size], partial(self._wrote, unique, size)):
            return False
        self._room = None
        return True

    def _wrote(self, unique: int, size: int) -> None:
        self._answer(_WRITTEN.pack(_WRITTEN.size, 0, unique, size, 0))

    def _is_released(self, room: bytes, unique: int) -> bool:
        (number,) = _RELEASING.unpack_from(room, self._start + _HEADER.size)
        _, release = self._files.get(number, _UNKNOWN)
        if release is None or not release():
            return False
        self._answer(_DONE.pack(_DONE.size, 0, unique))
        return True

    def _is_absent(self, absent: Absent, unique: int, folder: int, name: bytes, task: int) -> bool:
        seconds = absent(folder, name, task)
        if seconds is None:
            return False
        whole, part = divmod(seconds, 1)
        self._answer(_ABSENT.pack(_ABSENT.size, 0, unique, int(whole), int(part * 1e9)))
        return True

    def _answer(self, answer: bytes) -> None:
        with suppress(OSError):
            # Whoever asked may have given up.
            os.write(self._device, answer)

    def _hand_on(self, buffer: Buffer, got: int) -> int:
        """Give pyfuse3 a request, in memory that it may free."""
        if not buffer.place:
            buffer.place = self._allocate(_MALLOCED)
            if not buffer.place:
                return -errno.ENOMEM
        ctypes.memmove(buffer.place, self._place, got)
        buffer.size, buffer.flags = got, 0
        return got
