# SPDX-License-Identifier: Apache-2.0
"""Two answers to the kernel that libfuse would not give: that there is passthrough, and which open files take it.

libfuse knows passthrough from 3.17 on, and pyfuse3 offers it with none. So the answer to the kernel's first request
gets two more fields on its way out of libfuse, and the answer to an open is written in pyfuse3's stead by another
function of libfuse, where the open is one that was `promise`d.

Answers for these two answers, as linux/fuse.h has them. Where it can't be done (another machine, another libfuse), the
mount is as it would be without. Which files may be passed through, `glancefs.fuse.passthrough` knows.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from typing import Any, Final

import pyfuse3

from glancefs.fuse.calls import Call, library_of

_INIT: Final = struct.Struct("=IIIIHHIIHHII")
"""struct fuse_init_out: major, minor, max_readahead, flags, …, and at the end flags2 and max_stack_depth."""
_INIT_SIZE: Final = 64
_FLAGS, _FLAGS_2, _STACK_DEPTH = 3, 10, 11
_FLAGS_GO_ON: Final = 1 << 30
"""FUSE_INIT_EXT: that there are more flags than fit into 32 bits."""
_PASSTHROUGH_OFFERED: Final = 1 << (37 - 32)
"""FUSE_PASSTHROUGH, in the second half of the flags."""
_DEPTH: Final = 1
"""How many file systems lie upon each other, this one included: data that lie on an overlay are not passed through."""

_OPEN: Final = struct.Struct("=QIi")
"""struct fuse_open_out: file handle, flags, backing id."""
_NO_FLUSH: Final = 1 << 5
"""FOPEN_NOFLUSH: a close need not be told of; of data that never change there is nothing to be flushed."""
_PASSTHROUGH: Final = 1 << 7
"""FOPEN_PASSTHROUGH."""


class _Piece(ctypes.Structure):
    """struct iovec of writev(2)."""

    _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _OpenFile(ctypes.Structure):
    """The beginning of struct fuse_file_info of libfuse's fuse_common.h, the same since 3.0."""

    _fields_ = (("flags", ctypes.c_int), ("bits", ctypes.c_uint), ("more_bits", ctypes.c_uint), ("fh", ctypes.c_uint64))


_Writev: Final = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.POINTER(_Piece), ctypes.c_int, use_errno=True)
_ReplyOpen: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_OpenFile))
_ReplyBytes: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


class Replies:
    """The answers of this process' mount; as libfuse gives them until `change`, and after `leave_alone`."""

    def __init__(self) -> None:
        """Find the places. Raises LookupError where they are not to be found."""
        module = ctypes.CDLL(pyfuse3.__file__)
        opening = Call.find(module, "fuse_reply_open")
        libfuse = ctypes.CDLL(library_of(opening.address))
        writing = Call.find(libfuse, "writev")
        self._promised: Final[dict[int, int]] = {}
        self._reply_open: Final = _ReplyOpen(opening.address)
        self._reply_bytes: Final = _ReplyBytes(("fuse_reply_buf", libfuse))
        self._writev: Final = _Writev(writing.address)
        # The thunks live as long as something may call them.
        self._changed: Final[dict[Call, Any]] = {
            writing: _Writev(self._write_first),
            opening: _ReplyOpen(self._open),
        }
        self._first: Final = writing
        self._has_answered = False

    def change(self) -> None:
        """Begin, before the kernel's first request is answered. Raises OSError where the system forbids it."""
        for call, function in self._changed.items():
            call.replace(ctypes.cast(function, ctypes.c_void_p).value or 0)

    def leave_alone(self) -> None:
        """End; may be called twice."""
        for call in self._changed:
            call.restore()

    def promise(self, number: int, backing: int) -> None:
        """Let the answer to the open that gives this file handle say that the kernel reads the file by itself."""
        self._promised[number] = backing

    # ---- called by libfuse and pyfuse3: whatever happens, an answer goes out

    def _write_first(self, device: int, pieces: Any, count: int) -> int:  # noqa: ANN401 - a pointer has no type that can be named
        if not self._has_answered and count > 1 and pieces[1].size == _INIT_SIZE:
            _offer(pieces[1].start)
        self._has_answered = True
        # Where it can't be put back, all answers take the way through here.
        with contextlib.suppress(OSError):
            self._first.restore()
        return int(self._writev(device, pieces, count))

    def _open(self, request: int, file: Any) -> int:  # noqa: ANN401 - as above
        backing = self._promised.pop(file.contents.fh, None)
        if backing is None:
            return int(self._reply_open(request, file))
        answer = _OPEN.pack(file.contents.fh, _PASSTHROUGH | _NO_FLUSH, backing)
        return int(self._reply_bytes(request, answer, len(answer)))


def _offer(place: int) -> None:
    """Say in the answer to the kernel's first request that files may be passed through; older kernels overlook it."""
    fields = list(_INIT.unpack(ctypes.string_at(place, _INIT.size)))
    fields[_FLAGS] |= _FLAGS_GO_ON
    fields[_FLAGS_2] |= _PASSTHROUGH_OFFERED
    fields[_STACK_DEPTH] = _DEPTH
    ctypes.memmove(place, _INIT.pack(*fields), _INIT.size)
