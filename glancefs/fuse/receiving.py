# SPDX-License-Identifier: Apache-2.0
"""Bytes that programs write, taken from the kernel into memory that is kept, and answered at once.

pyfuse3 has libfuse copy each request into one buffer, holds the interpreter's lock meanwhile, copies what is written
once more, and begins a task that answers. For a piece of 1 MiB that is more work than writing it down. So the function
of libfuse by which pyfuse3 receives requests is replaced, as `glancefs.fuse.replies` replaces two others: a request is
received into memory of its own, without the lock and so that the bytes begin where a page does. Bytes for an open file
that has been entered here go to whoever takes them, with no copy; anything else goes the ordinary way, and so does what
can't be taken at this moment.

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

_REQUEST: Final = struct.Struct("=IIQQIIIHHQQIIQII")
"""struct fuse_in_header and struct fuse_write_in: length, opcode, unique, …; file handle, offset, size, …"""
_OPCODE, _UNIQUE, _HANDLE, _OFFSET, _SIZE = 1, 2, 9, 10, 11
_WRITE: Final = 16
"""FUSE_WRITE."""
_ANSWER: Final = struct.Struct("=IiQII")
"""struct fuse_out_header and struct fuse_write_out: length, error, unique; size, padding."""
_PAGE: Final = 4096
_ROOM: Final = (1 << 20) + _PAGE
"""In bytes: what libfuse takes for the largest request, and no less than the kernel wants to have."""
_MALLOCED: Final = 2 * _ROOM
"""In bytes: how much memory libfuse's own buffer has where this module makes it; more than any libfuse of today."""

Take = Callable[[int, memoryview, Callable[[], None]], bool]
"""Takes bytes at an offset, which nobody else will change, and calls what it is given once they count as written.

False where it does not take them; then it calls nothing.
"""


class Buffer(ctypes.Structure):
    """The beginning of struct fuse_buf of libfuse's fuse_common.h, the same since 3.0."""

    _fields_ = (("size", ctypes.c_size_t), ("flags", ctypes.c_int), ("place", ctypes.c_void_p))


_Receive: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Buffer))


class Receiving:
    """The requests of this process' mount, within `changed`."""

    def __init__(self) -> None:
        """Find the place."""
        self._takers: Final[dict[int, Take]] = {}
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
        try:
            self._call.replace(ctypes.cast(self._thunk, ctypes.c_void_p).value or 0)
        except OSError as error:
            self.trouble = str(error)
        try:
            yield
        finally:
            with suppress(OSError):
                self._call.restore()

    def enter(self, number: int, take: Take) -> None:
        """Have what is written through a file handle of this number taken, until `leave`."""
        self._takers[number] = take

    def leave(self, number: int) -> None:
        """Have it taken no more; a number that was never entered is fine."""
        self._takers.pop(number, None)

    def tell(self) -> None:
        """Tell the log where it can't be done."""
        if self.trouble is not None:
            _log.info("what is written is received by libfuse: %s", self.trouble)

    # ---- called by pyfuse3: whatever happens, it gets what it asked for

    def receive(self, session: int, buffer: Any) -> int:  # noqa: ANN401 - a pointer has no type that can be named
        """Give the size of the next request, which is in the buffer; or -EINTR where there is none to be answered."""
        if self.trouble is not None:
            return int(self._ordinary(session, buffer))
        if self._room is None:
            self._make_room()
        got = int(self._read(self._device, self._place, _ROOM))
        if got <= 0:
            return self._not_received(session, buffer)
        if self._is_taken(got):
            # pyfuse3 then looks for the next one.
            return -errno.EINTR
        return self._hand_on(buffer.contents, got)

    def _make_room(self) -> None:
        self._room = self._make(None, _ROOM + _PAGE)
        place = int(self._place_of(self._room))
        # The bytes begin with a page: the kernel copies page by page, and what lies across two in two pieces.
        self._start = -(place + _REQUEST.size) % _PAGE
        self._place = place + self._start

    def _not_received(self, session: int, buffer: Any) -> int:  # noqa: ANN401 - as above
        code = ctypes.get_errno()
        if code in {errno.EINTR, errno.EAGAIN, errno.ENOENT}:
            # ENOENT: who asked has given up.
            return -errno.EINTR
        if code == errno.EINVAL:
            self.trouble = "requests are larger than was foreseen"
        # Such as the end of the mount, of which libfuse takes note.
        return int(self._ordinary(session, buffer))

    def _is_taken(self, got: int) -> bool:
        room = self._room
        if room is None or got < _REQUEST.size:
            return False
        fields = _REQUEST.unpack_from(room, self._start)
        if fields[_OPCODE] != _WRITE or (take := self._takers.get(fields[_HANDLE])) is None:
            return False
        start, size = self._start + _REQUEST.size, fields[_SIZE]
        answer = partial(self._answer, fields[_UNIQUE], size)
        try:
            if not take(fields[_OFFSET], memoryview(room)[start : start + size], answer):
                return False
        except Exception:  # noqa: BLE001 - nothing may pass to C; the ordinary way meets with it again, and tells
            _log.debug("what was written goes the ordinary way", exc_info=True)
            return False
        self._room = None
        return True

    def _answer(self, unique: int, size: int) -> None:
        with suppress(OSError):
            # Whoever wrote may have given up.
            os.write(self._device, _ANSWER.pack(_ANSWER.size, 0, unique, size, 0))

    def _hand_on(self, buffer: Buffer, got: int) -> int:
        """Give pyfuse3 a request, in memory that it may free."""
        if not buffer.place:
            buffer.place = self._allocate(_MALLOCED)
            if not buffer.place:
                return -errno.ENOMEM
        ctypes.memmove(buffer.place, self._place, got)
        buffer.size, buffer.flags = got, 0
        return got
