# SPDX-License-Identifier: Apache-2.0
"""Data that come before anybody has said what image they are of: of a file that is still being written elsewhere.

Each arrival is a file without a name (open(2), O_TMPFILE) on the file system of the default store, to which pieces are
appended in order, hashed as they come. It ends as the `LocalFile` of an upload, which the store adopts without a copy,
or it is let go of: dropped, broken off, or waited for in vain. What this process holds dies with it, however it dies.

Answers for whose arrivals there are, how many, and for how long. Nobody may rely on one: whoever sends ahead sends
everything once more where it is lost.

Threading: every method may be called from many threads; an arrival is used by one at a time. A thread watches the time
while there are any.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Condition, Thread
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import AheadLost, InvalidRequest, NotAuthenticated, StoreFull, TooManyUploads
from glancefs.localfile import LocalFile, UnnamedFile
from glancefs.measure import MeasuredSource, check_size_allowed
from glancefs.stores.base import Source
from glancefs.stores.disk import Disk, border, make_folder
from glancefs.stores.pipeline import BLOCKS, Blocks, Digest, checksum_text, copy, sha256

_log = logging.getLogger(__name__)

MOST: Final = 16
"""How many arrivals one process holds."""
MOST_OF_ONE: Final = 8
"""How many of them one user has."""
PATIENCE: Final = 60.0
"""For how many seconds an arrival waits for its next piece."""

_SHORTEST_KEY: Final = 16
_LONGEST_KEY: Final = 64
_WRITE_BACK_EVERY: Final = 8 << 20
"""After how many bytes the disk is told to begin, so that the sync at the end finds little to do."""
_SHORTEST_WATCH: Final = 0.05
"""Seconds between two looks at the least."""
_STORE: Final = "ahead"

_Name = tuple[str, str]
"""The user, and the key that the user chose."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Arrival:
    """One file on its way."""

    descriptor: int
    digest: Digest = field(default_factory=sha256)
    size: int = 0
    started: int = 0
    """Up to where the disk was told to begin."""
    touched: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Let go of the file, which frees its blocks unless it has got a name."""
        os.close(self.descriptor)


class Arrivals:
    """The arrivals of one process. ``folder``, which is made when it is needed, is where the files are."""

    def __init__(
        self,
        *,
        folder: Path,
        max_upload: int | None,
        most: int = MOST,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder: Final = folder
        self._max_upload: Final = max_upload
        self._most: Final = most
        self._patience: Final = patience
        self._clock: Final = clock
        self._disk: Final = Disk()
        self._blocks: Final = Blocks(most=2 * BLOCKS)
        self._changed: Final = Condition()
        self._waiting: Final[dict[_Name, _Arrival]] = {}
        """Those that nobody is appending to."""
        self._in_use: Final[dict[_Name, bool]] = {}
        """Those that somebody is appending to, and whether they are wanted afterwards."""
        self._watcher: Thread | None = None
        self._is_closed = False

    def begin(self, context: RequestContext, key: str) -> None:
        """Begin to take data under a key of the caller's.

        Raises NotAuthenticated, InvalidRequest for a key that is none, TooManyUploads, AheadLost where there can be no
        such file or there is one.
        """
        name = _name(context, key)
        with self._changed:
            names = [*self._waiting, *self._in_use]
            if name in names or self._is_closed:
                raise AheadLost("Something was begun under this key already, or the server is about to stop.")
            if len(names) >= self._most or sum(user == name[0] for user, _ in names) >= MOST_OF_ONE:
                raise TooManyUploads("Too much is being sent ahead at this time.")
            self._in_use[name] = True
        try:
            arrival = self._open()
        except BaseException:
            self._end(name)
            raise
        self._keep(name, arrival)

    def append(self, context: RequestContext, key: str, offset: int, source: Source, size: int) -> None:
        """Take a piece of this size, which belongs at the offset: behind what is here. Raises AheadLost otherwise.

        After any error what was here is gone. Raises UploadTooLarge, and what ``source`` raises.
        """
        name = _name(context, key)
        arrival = self._take(name)
        try:
            self._append(arrival, offset, source, size)
        except BaseException:
            self._end(name, arrival)
            raise
        self._keep(name, arrival)

    @contextmanager
    def complete(
        self, context: RequestContext, key: str, offset: int, source: Source, size: int
    ) -> Iterator[LocalFile]:
        """Take the last piece, of this size, and give the complete file, for as long as the context lasts.

        Whatever comes of it, the key means nothing afterwards. Raises as `append` does.
        """
        name = _name(context, key)
        arrival = self._take(name)
        try:
            self._append(arrival, offset, source, size)
            checksum = checksum_text(arrival.digest)
            yield UnnamedFile(descriptor=arrival.descriptor, size=arrival.size, checksum=checksum)
        finally:
            self._end(name, arrival)

    def drop(self, context: RequestContext, key: str) -> None:
        """Let go of what came under a key, if anything did."""
        name = _name(context, key)
        with self._changed:
            arrival = self._waiting.pop(name, None)
            if name in self._in_use:
                self._in_use[name] = False
        if arrival is not None:
            arrival.close()

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        with self._changed:
            self._is_closed = True
            self._let_go(list(self._waiting))
            self._changed.notify_all()
            watcher = self._watcher
        if watcher is not None:
            watcher.join()

    # ---- inside

    def _take(self, name: _Name) -> _Arrival:
        """Have an arrival to oneself, until it is kept or ended."""
        with self._changed:
            arrival = self._waiting.pop(name, None)
            if arrival is None:
                raise AheadLost("Nothing was begun under this key, or it is over.")
            self._in_use[name] = True
            return arrival

    def _keep(self, name: _Name, arrival: _Arrival) -> None:
        arrival.touched = self._clock()
        with self._changed:
            if not self._in_use.pop(name) or self._is_closed:
                arrival.close()
                return
            self._waiting[name] = arrival
            if self._watcher is None:
                self._watcher = Thread(target=self._watch, name="arrivals", daemon=True)
                self._watcher.start()

    def _end(self, name: _Name, arrival: _Arrival | None = None) -> None:
        if arrival is not None:
            arrival.close()
        with self._changed:
            del self._in_use[name]

    def _open(self) -> _Arrival:
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        try:
            make_folder(self._folder, sync=False)
            return _Arrival(descriptor=os.open(self._folder, flags, 0o600), touched=self._clock())
        except OSError as error:
            # Not every file system has files without names, and nobody is owed one.
            _log.info("Nothing can be sent ahead to %s: %s", self._folder, error)
            raise AheadLost("Nothing can be sent ahead to this server.") from None

    def _append(self, arrival: _Arrival, offset: int, source: Source, size: int) -> None:
        if offset != arrival.size:
            raise AheadLost(f"{arrival.size} bytes are here, and what comes belongs at {offset}.")
        check_size_allowed(arrival.size + size, most=self._max_upload)
        measured = MeasuredSource(source, size=size, most=None)
        write = partial(self._write, arrival)
        copy(measured, write, size=size, digest=arrival.digest, blocks=self._blocks)

    def _write(self, arrival: _Arrival, part: memoryview) -> None:
        try:
            with border(_STORE, "writing"):
                while part:
                    written = os.write(arrival.descriptor, part)
                    arrival.size += written
                    part = part[written:]
        except StoreFull as error:
            # The upload itself is going to be told, once it is one.
            raise AheadLost(str(error)) from None
        if arrival.size - arrival.started >= _WRITE_BACK_EVERY:
            self._disk.start_writing(arrival.descriptor, arrival.started, arrival.size)
            arrival.started = arrival.size

    def _watch(self) -> None:
        """Let go of what is waited for in vain, until there is nothing left to wait for."""
        with self._changed:
            while self._waiting or self._in_use:
                now = self._clock()
                self._let_go([name for name, one in self._waiting.items() if one.touched + self._patience <= now])
                first = min((one.touched for one in self._waiting.values()), default=now)
                self._changed.wait(max(first + self._patience - now, _SHORTEST_WATCH))
                if self._is_closed:
                    break
            self._watcher = None

    def _let_go(self, names: list[_Name]) -> None:
        for name in names:
            self._waiting.pop(name).close()


def _name(context: RequestContext, key: str) -> _Name:
    if context.user is None:
        raise NotAuthenticated("Only a known user may add images: log in.")
    if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        message = f"A key has {_SHORTEST_KEY} to {_LONGEST_KEY} characters."
        raise InvalidRequest(message)
    return context.user, key
