# SPDX-License-Identifier: Apache-2.0
"""One file on its way to be an image: written in any order, read back, hashed beside.

Answers for the bytes of one staged file, and for what is known of it, kept in its sidecar. Does not decide when it
becomes an image: `glancefs.tree` does.

Threading: every method may be called from many threads; writes are not held up by hashing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, RLock
from typing import Final, Protocol

from glancefs.errors import ImmutableImage, WrongStatus
from glancefs.localfile import LocalFile
from glancefs.measure import check_size_allowed
from glancefs.model import Image
from glancefs.staging.hashing import RunningChecksum
from glancefs.staging.sidecar import SUFFIX, Said, Sidecar, StagedState, write_sidecar
from glancefs.stores.disk import Disk, border, sync_folder

_log = logging.getLogger(__name__)

_WRITE_BACK_EVERY: Final = 8 << 20
"""After how many bytes the disk is told to begin, so that the sync at the end finds little to do."""

_WRITABLE: Final = frozenset({StagedState.STAGED, StagedState.ABORTED, StagedState.FAILED})
_STORE: Final = "staging"


class Follower(Protocol):
    """Who is told what happens to a file while it is written; none of it may wait, nor raise."""

    def begin_write(self, offset: int) -> None:
        """Say that a write is about to begin here."""
        ...

    def end_write(self, offset: int, end: int) -> None:
        """Say that this write is over, and up to where it came."""
        ...

    def truncate(self, size: int) -> None:
        """Say that the file is about to get this size."""
        ...

    def end(self) -> None:
        """Say that nothing will come of the file, or that it is an image; may be said twice."""
        ...


Follow = Callable[[Path, int], Follower]
"""Gives who follows a file, by its path and its descriptor, which begins empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the staged files of one mount share."""

    executor: Executor
    disk: Disk
    max_upload: int | None
    is_passage: bool = False
    """Whether files leave this disk when they are complete, so that what is written need not get there."""


class StagedUpload:
    """A staged file. `glancefs.staging.Staging` makes them, the tree hands them out."""

    def __init__(
        self,
        *,
        key: str,
        file: Path,
        descriptor: int,
        sidecar: Sidecar,
        surroundings: Surroundings,
        is_noted: bool = True,
        follower: Follower | None = None,
    ) -> None:
        """``is_noted`` says that its sidecar is on the disk."""
        self.key: Final = key
        """Unique among the staged files of all mounts: its `Entry.key` is ``staged:KEY``."""
        status = os.fstat(descriptor)
        self._file: Final = file
        self._descriptor: Final = descriptor
        self._sidecar = sidecar
        self._is_noted = is_noted
        self._surroundings: Final = surroundings
        self._checksum: Final = RunningChecksum(descriptor=descriptor, executor=surroundings.executor)
        self._follower: Final = follower
        self._changed: Final = Condition(RLock())
        self._size = status.st_size
        self._written_at = status.st_mtime_ns
        self._started = 0
        self._writers = 0
        self._is_written = status.st_blocks > 0
        self._is_sealed = False
        self._is_closed = False
        self._is_durable = False
        self._image: Image | None = None

    # ---- what is known of it

    @property
    def path(self) -> str:
        """Where its mount shows it; an aborted one: where it did."""
        return self._sidecar.path

    @property
    def said(self) -> Said:
        """What was said of the image to be."""
        return self._sidecar.said

    @property
    def state(self) -> StagedState:
        """What is going on with it."""
        return self._sidecar.state

    @property
    def replaces(self) -> str | None:
        """The id of the available image whose place it takes."""
        return self._sidecar.replaces

    @property
    def queued(self) -> str | None:
        """The id of the queued image whose data this is to be."""
        return self._sidecar.queued

    @property
    def image(self) -> Image | None:
        """What became of it: the image, as it was then."""
        return self._image

    @property
    def size(self) -> int:
        """In bytes, from memory."""
        return self._size

    @property
    def is_written(self) -> bool:
        """Whether a byte was ever written into it: giving it a size alone does not count."""
        return self._is_written

    @property
    def is_open(self) -> bool:
        """Whether it still has its descriptor."""
        return not self._is_closed

    @property
    def mtime_ns(self) -> int:
        """The time of the latest write, in nanoseconds."""
        return self._written_at

    @property
    def fileno(self) -> int:
        """The descriptor of the local file, for preadv and sendfile; valid until `close`, after publishing too."""
        return self._descriptor

    def know(
        self,
        *,
        path: str | None = None,
        said: Said | None = None,
        state: StagedState | None = None,
    ) -> None:
        """Change what is known of it. Raises StoreFull, StoreUnavailable when that can't be kept."""
        with self._changed:
            before = self._sidecar
            after = replace(
                before,
                path=before.path if path is None else path,
                said=before.said if said is None else said,
                state=before.state if state is None else state,
            )
            if after.state is StagedState.ABORTED:
                after = replace(after, replaces=None, queued=None)
            if after == before:
                return
            self._sidecar = after
            if after.state is StagedState.ABORTED:
                self._end_following()
            if after.state in _WRITABLE:
                self._write_sidecar()

    def note(self) -> None:
        """Keep what is known of it for later mounts, unless that was done. Raises StoreFull, StoreUnavailable."""
        if not self._is_noted:
            with self._changed:
                self._write_sidecar()

    # ---- bytes

    def write_at(self, offset: int, data: bytes | memoryview, *, is_noted: bool = True) -> int:
        """Write all of it at any place, and give how much that was.

        Without ``is_noted`` it is on the caller to `note` it, if it does not become an image at once: that costs more
        than writing a small file. Raises StoreFull and UploadTooLarge at once, StoreUnavailable; ImmutableImage once it
        is an image.
        """
        if is_noted:
            self.note()
        with self._changed:
            self._check_writable()
            check_size_allowed(offset + len(data), most=self._surroundings.max_upload)
            self._writers += 1
            self._checksum.begin_write(offset)
            if self._follower is not None:
                self._follower.begin_write(offset)
        end = offset
        try:
            with border(_STORE, "writing"):
                # Nearly always one call writes everything.
                end += os.pwrite(self._descriptor, data, end)
                while end - offset < len(data):
                    end += os.pwrite(self._descriptor, data[end - offset :], end)
        finally:
            self._checksum.end_write(offset, end)
            if self._follower is not None:
                self._follower.end_write(offset, end)
            with self._changed:
                self._writers -= 1
                self._size = max(self._size, end)
                self._is_written = self._is_written or end > offset
                self._written_at = time.time_ns()
                self._changed.notify_all()
        self._start_writing(end)
        return len(data)

    def truncate(self, size: int) -> None:
        """Give it this size; what it grows by is a hole. Raises as `write_at` does."""
        if size:
            self.note()
        with self._changed:
            self._check_writable()
            check_size_allowed(size, most=self._surroundings.max_upload)
            self._checksum.truncate(size)
            if self._follower is not None:
                self._follower.truncate(size)
            with border(_STORE, "truncating"):
                os.ftruncate(self._descriptor, size)
            self._size = size
            self._written_at = time.time_ns()

    def read_at(self, offset: int, size: int) -> bytes:
        """Give the bytes from ``offset`` on, fewer only at the end. Raises StoreUnavailable."""
        pieces = []
        with border(_STORE, "reading"):
            while size > 0 and (piece := os.pread(self._descriptor, size, offset)):
                pieces.append(piece)
                offset += len(piece)
                size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def allocated(self) -> int:
        """Give the bytes that it takes on the disk. Raises StoreUnavailable."""
        if not self._is_written:
            return 0
        with border(_STORE, "looking at a file"):
            return os.fstat(self._descriptor).st_blocks * 512

    def fsync(self) -> None:
        """Make it durable as it is, which publishes nothing. Raises StoreFull, StoreUnavailable."""
        with border(_STORE, "syncing"):
            os.fdatasync(self._descriptor)
            if self._is_durable or self.state not in _WRITABLE:
                return
            write_sidecar(self._sidecar_file, self._sidecar, sync=True)
            self._is_noted = True
            sync_folder(self._file.parent)
            sync_folder(self._file.parent.parent)
            self._is_durable = True

    # ---- the end

    def seal(self) -> LocalFile:
        """Take no more writes, wait for those under way, and give the complete file.

        Raises ImmutableImage, WrongStatus unless it is staged; StoreUnavailable when it can't be read.
        """
        with self._changed:
            self._check_writable()
            self._is_sealed = True
            self._changed.wait_for(lambda: not self._writers)
        try:
            with border(_STORE, "reading"):
                checksum = self._checksum.finish(self._size)
        except BaseException:
            self.unseal()
            raise
        return LocalFile(path=self._file, descriptor=self._descriptor, size=self._size, checksum=checksum)

    def unseal(self) -> None:
        """Take writes again: it did not become an image."""
        self._is_sealed = False

    def become(self, image: Image) -> None:
        """Say what it has become; whatever is left of it in staging is removed, its bytes stay readable."""
        with self._changed:
            self._image = image
            self._sidecar = replace(self._sidecar, state=StagedState.PUBLISHED)
            self._remove_files()

    def discard(self) -> None:
        """Remove it; whoever has it open goes on, and nothing comes of it. May be called twice."""
        with self._changed:
            if self.state not in _WRITABLE:
                return
            self._sidecar = replace(self._sidecar, state=StagedState.DISCARDED)
            self._end_following()
            self._remove_files()

    def close(self) -> None:
        """Let go of the descriptor; may be called twice."""
        with self._changed:
            if not self._is_closed:
                self._is_closed = True
                self._end_following()
                os.close(self._descriptor)

    def _end_following(self) -> None:
        if self._follower is not None:
            self._follower.end()

    @property
    def _sidecar_file(self) -> Path:
        return self._file.with_name(self._file.name + SUFFIX)

    def _write_sidecar(self) -> None:
        with border(_STORE, "writing"):
            write_sidecar(self._sidecar_file, self._sidecar)
        self._is_noted = True

    def _remove_files(self) -> None:
        try:
            for file in (self._sidecar_file, self._file) if self._is_noted else (self._file,):
                with suppress(FileNotFoundError):
                    os.unlink(file)  # noqa: PTH108 - a path of pathlib's would be taken apart first
        except OSError as error:
            _log.warning("%s stays until the next sweep: %s", self._file, error)

    def _check_writable(self) -> None:
        if self.state is StagedState.PUBLISHED or self._is_sealed:
            raise ImmutableImage(f"{self.path!r} is an image, and data of an image never change.")
        # A file that was removed while somebody has it open takes writes, as everywhere; they lead nowhere.
        if self._is_closed:
            raise WrongStatus(f"{self.path!r} is closed.")

    def _start_writing(self, end: int) -> None:
        if self._surroundings.is_passage:
            return
        if end - self._started >= _WRITE_BACK_EVERY:
            start, self._started = self._started, end
            self._surroundings.disk.start_writing(self._descriptor, start, end)
        elif end < self._started:
            self._started = end
