# SPDX-License-Identifier: Apache-2.0
"""Files of the user: what goes into images, and what comes out of them.

Answers for reading files, pipes and standard input alike, and for a download that is complete or not there at all:
it grows in ``FILE.part``, which the next try goes on with, and takes its name when it is verified.

Threading: used by the main thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from glancefs.cli.backend import Backend, Progress
from glancefs.errors import ChecksumMismatch, Conflict
from glancefs.formats import SNIFF_SIZE
from glancefs.model import Image

BLOCK: Final = 1 << 20
SHORTEST_HOLE: Final = 1 << 16
PART: Final = ".part"
"""What is added to the name of a file that is not complete yet."""
_ZEROS: Final = bytes(BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Something open for reading."""

    data: BinaryIO
    size: int | None
    """In bytes; None for a pipe."""
    head: bytes
    """Its first bytes, which `data` gives too."""


@contextmanager
def opened(path: str) -> Iterator[Opened]:
    """Open a file, or standard input for ``-``. Raises OSError."""
    with contextlib.ExitStack() as stack:
        data = sys.stdin.buffer if path == "-" else stack.enter_context(Path(path).open("rb"))
        yield _look(data)


def _look(data: io.BufferedReader | BinaryIO) -> Opened:
    head = _read_head(data)
    mode = os.fstat(data.fileno()).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        return Opened(data=cast("BinaryIO", io.BufferedReader(_Rejoined(head, data))), size=None, head=head)
    start = data.tell() - len(head)
    size = data.seek(0, io.SEEK_END) - start
    data.seek(start)
    return Opened(data=data, size=size, head=head)


def _read_head(data: io.BufferedReader | BinaryIO) -> bytes:
    head = b""
    while len(head) < SNIFF_SIZE and (piece := data.read(SNIFF_SIZE - len(head))):
        head += piece
    return head


class _Rejoined(io.RawIOBase):
    """A stream in which the beginning that was read stands in its place again."""

    def __init__(self, head: bytes, rest: io.BufferedReader | BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed has a type of its own
        if not self._head:
            return int(cast("io.BufferedReader", self._rest).readinto1(buffer))
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        return count


def write_stream(backend: Backend, image: Image, out: BinaryIO, *, progress: Progress) -> None:
    """Write an image's data to a stream. Raises ChecksumMismatch when they were not what they should be."""
    digest = hashlib.sha256()
    with closing(backend.read(image)) as chunks:
        for chunk in chunks:
            digest.update(chunk)
            out.write(chunk)
            progress(len(chunk))
    out.flush()
    _verify(image, digest.hexdigest())


def write_file(backend: Backend, image: Image, target: Path, *, progress: Progress) -> None:
    """Write an image's data to a file, going on where an earlier try ended.

    What arrived stays in ``FILE.part`` when it fails. Raises ChecksumMismatch, Conflict, OSError and what the backend
    raises.
    """
    part = target.with_name(f"{target.name}{PART}")
    with _open_part(part) as file:
        _lock(file, part)
        digest = _digest_of_rest(file, image, progress)
        resumed = file.tell() > 0
        _fetch(backend, image, file, digest, progress)
        if resumed and _differs(image, digest.hexdigest()):
            # The part was of another image, or damaged.
            file.seek(0)
            file.truncate()
            digest = hashlib.sha256()
            _fetch(backend, image, file, digest, progress)
        try:
            _verify(image, digest.hexdigest())
        except ChecksumMismatch:
            part.unlink()
            raise
        os.fsync(file.fileno())
        part.replace(target)


def _open_part(path: Path) -> io.FileIO:
    # Others may write this folder too: nothing that they put in its place is followed, or waited for.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = io.FileIO(path, "r+b", opener=lambda _path, _flags: os.open(path, flags, 0o666))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _no_part(path) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_part(path)
    return file


def _no_part(path: Path) -> OSError:
    return FileExistsError(errno.EEXIST, "is no regular file; remove it", str(path))


def _lock(file: io.FileIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_same = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_same = False
    if not is_same:
        message = f"{path} is being written by another download."
        raise Conflict(message)


def _digest_of_rest(file: io.FileIO, image: Image, progress: Progress) -> hashlib._Hash:
    """Hash what an earlier try left, and stand at its end."""
    digest = hashlib.sha256()
    if os.fstat(file.fileno()).st_size > image.size:
        file.truncate(0)
    while piece := file.read(BLOCK):
        digest.update(piece)
        progress(len(piece))
    return digest


def _fetch(backend: Backend, image: Image, file: io.FileIO, digest: hashlib._Hash, progress: Progress) -> None:
    position = file.tell()
    try:
        with closing(backend.read(image, start=position)) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                if len(chunk) >= SHORTEST_HOLE and _ZEROS.startswith(chunk):
                    # A hole reads the same and takes no room.
                    file.seek(len(chunk), os.SEEK_CUR)
                else:
                    _write_all(file, chunk)
                position += len(chunk)
                progress(len(chunk))
    finally:
        file.truncate(position)
    if position != image.size:
        message = f"{position} bytes arrived instead of {image.size}."
        raise ChecksumMismatch(message)


def _write_all(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from None


def _differs(image: Image, hexdigest: str) -> bool:
    return image.checksum is not None and image.checksum != f"sha256:{hexdigest}"


def _verify(image: Image, hexdigest: str) -> None:
    if _differs(image, hexdigest):
        message = f"The data that arrived have the checksum sha256:{hexdigest}, not {image.checksum}."
        raise ChecksumMismatch(message)
