# SPDX-License-Identifier: Apache-2.0
"""Two answers to the kernel that libfuse would not give: what a mount is capable of, and what is passed through.

libfuse knows passthrough from 3.17 on, and pyfuse3 offers it with none. So the answer to the kernel's first request
is changed on its way out of libfuse: it offers passthrough, and that no privileges are left on files that are written.
And the answer to an open is sent in pyfuse3's stead by another function of libfuse, where it was `promise`d.

Answers for these two answers, as linux/fuse.h has them. Where it can't be done (another machine, another libfuse), the
mount is as it would be without. Which files may be passed through, `glancefs.fuse.passthrough` knows.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pyfuse3

from glancefs.fuse.calls import Call, library_of

_INIT: Final = struct.Struct("=IIIIHHIIHHII")
"""struct fuse_init_out: major, minor, max_readahead, flags, …, and at the end flags2 and max_stack_depth."""
_INIT_SIZE: Final = 64
_FLAGS, _FLAGS_2, _STACK_DEPTH = 3, 10, 11
_DROPS_PRIVILEGES: Final = 1 << 28
"""FUSE_HANDLE_KILLPRIV_V2: that no file keeps a set-user-ID bit or a capability when it is written, since here none has
any. Without it, the kernel asks for the attribute before each write."""
_FLAGS_GO_ON: Final = 1 << 30
"""FUSE_INIT_EXT: that there are more flags than fit into 32 bits."""
_PASSTHROUGH_OFFERED: Final = 1 << (37 - 32)
"""FUSE_PASSTHROUGH, in the second half of the flags."""
_MAPS_DIRECT: Final = 1 << (36 - 32)
"""FUSE_DIRECT_IO_ALLOW_MMAP: that files can be mapped that are read past the page cache, since Linux 6.6."""
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
    """The answers of this process' mount; as libfuse gives them but within `changed`."""

    def __init__(self) -> None:
        """Find the places."""
        self.trouble: str | None = None
        """Why the answers stay as they are; unset where they can be changed."""
        self._promised: Final[dict[int, int]] = {}
        self._changed: Final[dict[Call, Any]] = {}
        self._offers_passthrough = False
        self._has_answered = False
        try:
            self._find()
        except (LookupError, OSError, MemoryError) as error:
            # MemoryError: where the system lets no process make code, ctypes can't be called back.
            self.trouble = str(error)

    def _find(self) -> None:
        module = ctypes.CDLL(pyfuse3.__file__)
        opening = Call.find(module, "fuse_reply_open")
        libfuse = ctypes.CDLL(library_of(opening.address))
        writing = self._first = Call.find(libfuse, "writev")
        self._reply_open = _ReplyOpen(opening.address)
        self._reply_bytes = _ReplyBytes(("fuse_reply_buf", libfuse))
        self._writev = _Writev(writing.address)
        # These thunks have to live as long as something may call them.
        self._changed[writing] = _Writev(self._write_first)
        self._changed[opening] = _ReplyOpen(self._open)

    @contextmanager
    def changed(self, *, offers_passthrough: bool) -> Iterator[None]:
        """Change them where that can be done, from before the kernel's first request is answered to the mount's end."""
        self._offers_passthrough = offers_passthrough
        try:
            if self.trouble is None:
                for call, function in self._changed.items():
                    call.replace(ctypes.cast(function, ctypes.c_void_p).value or 0)
        except OSError as error:
            self.trouble = str(error)
        try:
            yield
        finally:
            for call in self._changed:
                with suppress(OSError):
                    call.restore()

    def promise(self, number: int, backing: int) -> None:
        """Let the answer to the open that gives this file handle say that the kernel reads the file by itself."""
        self._promised[number] = backing

    # ---- called by libfuse and pyfuse3: whatever happens, an answer goes out

    def _write_first(self, device: int, pieces: Any, count: int) -> int:  # noqa: ANN401 - a pointer has no type that can be named
        if not self._has_answered and count > 1 and pieces[1].size == _INIT_SIZE:
            _offer(pieces[1].start, passthrough=self._offers_passthrough)
        self._has_answered = True
        # Where it can't be put back, all answers take the way through here.
        with suppress(OSError):
            self._first.restore()
        return int(self._writev(device, pieces, count))

    def _open(self, request: int, file: Any) -> int:  # noqa: ANN401 - as above
        backing = self._promised.pop(file.contents.fh, None)
        if backing is None:
            return int(self._reply_open(request, file))
        answer = _OPEN.pack(file.contents.fh, _PASSTHROUGH | _NO_FLUSH, backing)
        return int(self._reply_bytes(request, answer, len(answer)))


def _offer(place: int, *, passthrough: bool) -> None:
    """Change the answer to the kernel's first request; older kernels overlook what they do not know."""
    fields = list(_INIT.unpack(ctypes.string_at(place, _INIT.size)))
    fields[_FLAGS] |= _DROPS_PRIVILEGES | _FLAGS_GO_ON
    fields[_FLAGS_2] |= _MAPS_DIRECT
    if passthrough:
        fields[_FLAGS_2] |= _PASSTHROUGH_OFFERED
        fields[_STACK_DEPTH] = _DEPTH
    ctypes.memmove(place, _INIT.pack(*fields), _INIT.size)
