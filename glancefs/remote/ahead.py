# SPDX-License-Identifier: Apache-2.0
"""Sending a file while it is still being written, so that little is left to be sent when it is closed.

A file that grows from its beginning, piece by piece, is followed: what of it has been written is sent to the server,
which keeps it under a key without knowing what it will be (`glancefs.arrivals`). The request that makes the image then
brings the rest. A piece is as much as has come meanwhile, so a network with long ways gets large pieces.

Answers for never having told the server anything else than the file holds: what is written anew after it was sent ends
the sending, as everything does that goes wrong. Promises nothing: whoever gets no `Handed` sends the whole file, which
lies complete on this host; the checksum that goes with the end of it is held against all that came.

Threading: what a writer says never waits for the network. Each file that is being sent has a thread and a connection of
its own, a few at a time; the connection stays the same, since another one may lead to another process.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import Any, Final

from urllib3.exceptions import HTTPError

from glancefs.cores import roam
from glancefs.errors import AheadLost, GlancefsError, NotFound, Unavailable
from glancefs.frontier import Frontier
from glancefs.localfile import LocalFile
from glancefs.registries.wire import KEY_HEADER
from glancefs.remote.line import Line
from glancefs.stores.base import Source
from glancefs.transport import Transport

_log = logging.getLogger(__name__)

PIECE: Final = 8 << 20
"""How many bytes are worth a request; a smaller file is not sent ahead."""
_LARGEST_PIECE: Final = 256 << 20
_MOST_FILES: Final = 4
"""How many files are sent ahead at once; the others are sent when they are closed."""
_LINGER: Final = 15.0
"""Seconds after which what has come is sent, however little it is: no server waits for long."""
_FORGET_AFTER: Final = 600.0
"""Seconds after which a server that knew nothing of this is asked again: it may have been upgraded."""


class _State(Enum):
    WAITING = "waiting"
    """Nothing was sent yet."""
    SENDING = "sending"
    HANDED = "handed"
    """Everything that was begun is there, and who makes the image goes on."""
    OVER = "over"


class Ahead:
    """The files of one mount that are sent while they are written."""

    def __init__(self, *, transport: Transport, timeout: float, piece: int = PIECE) -> None:
        """``timeout`` is in seconds, for every silence of the server; a request brings no less than a ``piece``."""
        self.transport: Final = transport
        self.timeout: Final = timeout
        self.piece: Final = piece
        self._lock: Final = Lock()
        self._files: Final[dict[Path, AheadFile]] = {}
        self._sending = 0
        self._not_before = float("-inf")
        self._is_closed = False

    def follow(self, path: Path, descriptor: int) -> AheadFile:
        """Follow a file, which begins empty: what happens to it is to be told to what this gives."""
        file = AheadFile(ahead=self, path=path, descriptor=descriptor)
        with self._lock:
            self._files[path] = file
        return file

    def of(self, source: Source) -> AheadFile | None:
        """Give what follows a file that is complete now; None where nothing does."""
        if not isinstance(source, LocalFile):
            return None
        with self._lock:
            return self._files.get(source.path)

    def close(self) -> None:
        """Give up whatever is on its way; may be called twice."""
        with self._lock:
            self._is_closed = True
            files = list(self._files.values())
        for file in files:
            file.end()
        for file in files:
            file.join()

    def admit(self) -> bool:
        """Take one of the few places, if there is one, and if the server is worth it."""
        with self._lock:
            is_free = self._sending < _MOST_FILES and not self._is_closed and time.monotonic() >= self._not_before
            self._sending += is_free
            return is_free

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self._sending -= 1

    def forget(self, path: Path) -> None:
        """Follow a file no more."""
        with self._lock:
            self._files.pop(path, None)

    def is_not_known(self) -> None:
        """Take note of a server that does not know these calls."""
        with self._lock:
            self._not_before = time.monotonic() + _FORGET_AFTER


class AheadFile:
    """One file that is followed, as its staging sees it (`glancefs.staging.Follower`)."""

    def __init__(self, *, ahead: Ahead, path: Path, descriptor: int) -> None:
        self._ahead: Final = ahead
        self._path: Final = path
        self._descriptor = descriptor
        self._key: Final = secrets.token_hex(16)
        self._changed: Final = Condition()
        self._frontier: Final = Frontier(is_strict=True)
        self._state = _State.WAITING
        self._is_wanted = False
        """Whether somebody waits for what was begun, to go on from there."""
        self._is_busy = False
        """Whether a request is under way."""
        self._is_begun = False
        self._may_be_there = False
        """Whether the server may have something that it is to let go of."""
        self._error: Exception | None = None
        self._line: Line | None = None
        self._thread: Thread | None = None

    @property
    def descriptor(self) -> int:
        """The file itself."""
        return self._descriptor

    # ---- what happens to the file

    def begin_write(self, offset: int) -> None:
        """Say that a write is about to begin here."""
        with self._changed:
            self._frontier.begin_write(offset)
            self._check()

    def end_write(self, offset: int, end: int) -> None:
        """Say that this write is over, and up to where it came."""
        with self._changed:
            self._frontier.end_write(offset, end)
            if self._frontier.reliable - self._frontier.taken < self._ahead.piece:
                return
            if self._state is _State.WAITING and self._ahead.admit():
                self._start()
            elif self._state is _State.SENDING and not self._is_busy:
                self._changed.notify_all()

    def truncate(self, size: int) -> None:
        """Say that the file is about to get this size."""
        with self._changed:
            self._frontier.cut(size)
            self._check()

    def end(self) -> None:
        """Say that nothing will come of the file, or that it is an image; may be said twice."""
        with self._changed:
            self._end()
        self._ahead.forget(self._path)

    # ---- the end

    def finish(self, source: Source) -> Handed:
        """Give what the server has of the file, which is complete now. Waits for what is on its way.

        Raises AheadLost where it has nothing, and Unavailable where that showed by its silence alone.
        """
        began = time.monotonic()
        with self._changed:
            if not self._is_begun:
                self._end()
            self._is_wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._state in {_State.HANDED, _State.OVER})
            line = self._line
            if self._state is _State.HANDED and line is not None and isinstance(source, LocalFile):
                return Handed(file=self, line=line, key=self._key, size=self._frontier.taken, source=source)
            error = self._error
        is_silence = isinstance(error, Unavailable) and isinstance(error.__cause__, TimeoutError)
        if error is not None and is_silence and time.monotonic() - began >= self._ahead.timeout / 2:
            raise error
        raise AheadLost("Nothing of the file was sent ahead, or not as it is now.")

    def join(self) -> None:
        """Wait until nothing is on its way any more."""
        if self._thread is not None:
            self._thread.join()

    def let_go(self, *, is_lost: bool) -> None:
        """Give back what a file took that was handed over; ``is_lost`` says that no image came of it."""
        with self._changed:
            self._state = _State.OVER
        if is_lost:
            # Who closes the file has something else to wait for.
            self._thread = Thread(target=self._drop_and_clean_up, name="ahead", daemon=True)
            self._thread.start()
        else:
            self._clean_up()

    # ---- inside

    def _check(self) -> None:
        if not self._frontier.is_valid and self._state in {_State.WAITING, _State.SENDING}:
            self._end()

    def _end(self) -> None:
        if self._state is _State.WAITING:
            self._state = _State.OVER
        elif self._state is _State.SENDING:
            self._state = _State.OVER
            if self._is_busy and self._line is not None:
                # The server lets go of what breaks off.
                self._line.cut()
            self._changed.notify_all()

    def _start(self) -> None:
        try:
            # Its own, since the file may be closed at any time.
            self._descriptor = os.dup(self._descriptor)
        except OSError as error:
            _log.debug("%s is sent when it is complete: %s", self._path, error)
            self._state = _State.OVER
            self._ahead.leave()
            return
        self._state = _State.SENDING
        self._thread = Thread(target=self._send, name="ahead", daemon=True)
        self._thread.start()

    def _send(self) -> None:
        roam()
        try:
            self._line = line = Line(transport=self._ahead.transport, timeout=self._ahead.timeout)
            self._may_be_there = True
            self._ask(line, "ahead/begin")
            self._is_begun = True
            while (piece := self._next()) is not None:
                start, stop = piece
                self._ask(line, "ahead/send", offset=start, data=(self._descriptor, start, stop))
            with self._changed:
                if self._state is _State.SENDING:
                    self._state = _State.HANDED
                    self._changed.notify_all()
                    return
        except (GlancefsError, OSError, HTTPError) as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - the last guard of the thread: nobody but its file depends on it
            _log.exception("A file could not be sent ahead")
            self._lose(error)
        self._drop_and_clean_up()

    def _ask(
        self, line: Line, name: str, *, offset: int | None = None, data: tuple[int, int, int] | None = None
    ) -> None:
        with self._changed:
            if self._state is not _State.SENDING:
                return
            self._is_busy = True
        try:
            line.post(name, {"key": self._key} | ({} if offset is None else {"offset": offset}), data=data)
        finally:
            with self._changed:
                self._is_busy = False

    def _next(self) -> tuple[int, int] | None:
        """Give what is to be sent next, once it is enough; None where who makes the image goes on, or nobody does."""
        frontier = self._frontier
        with self._changed:
            while True:
                is_late = not self._changed.wait_for(self._has_something, _LINGER)
                if self._is_wanted or self._state is not _State.SENDING:
                    return None
                if not is_late or frontier.reliable > frontier.taken:
                    return frontier.take(_LARGEST_PIECE)

    def _has_something(self) -> bool:
        is_enough = self._frontier.reliable - self._frontier.taken >= self._ahead.piece
        return is_enough or self._is_wanted or self._state is not _State.SENDING

    def _lose(self, error: Exception) -> None:
        if type(error) is NotFound:
            # What is not found otherwise has a name of its own.
            self._ahead.is_not_known()
        if not self._is_begun and not isinstance(error, Unavailable):
            self._may_be_there = False
        with self._changed:
            if self._state is _State.SENDING:
                _log.debug("%s is sent when it is complete: %s", self._path, error)
            self._error = error
            self._state = _State.OVER
            self._changed.notify_all()

    def _drop_and_clean_up(self) -> None:
        """Tell the server that it need not wait; where that can't be told, it finds out."""
        try:
            if self._may_be_there and self._line is not None:
                if not self._line.is_usable:
                    self._line.close()
                    self._line = Line(transport=self._ahead.transport, timeout=self._ahead.timeout)
                self._line.post("ahead/drop", {"key": self._key})
        except (GlancefsError, OSError, HTTPError) as error:
            _log.debug("The server was not told that %s is given up: %s", self._path, error)
        self._clean_up()

    def _clean_up(self) -> None:
        with self._changed:
            line, self._line = self._line, None
        if line is not None:
            line.close()
        os.close(self._descriptor)
        self._ahead.leave()


class Handed:
    """A file of which the server has the beginning; a context manager, that lets go of what this took."""

    def __init__(self, *, file: AheadFile, line: Line, key: str, size: int, source: LocalFile) -> None:
        self._file: Final = file
        self._line: Final = line
        self._key: Final = key
        self._size: Final = size
        self._source: Final = source
        self._is_done = False

    def send(self, name: str, said: Mapping[str, object], *, key: str, answer_within: float) -> Any:  # noqa: ANN401 - the answer is the call's
        """Make the call that brings the rest, under a key that makes it once. Raises what it does, and Unavailable."""
        said = {**said, "ahead": {"key": self._key, "size": self._size}}
        data = (self._file.descriptor, self._size, self._source.size)
        answer = self._line.post(name, said, data=data, headers={KEY_HEADER: key}, answer_within=answer_within)
        self._is_done = True
        return answer

    def close(self) -> None:
        """Let go of it."""
        self._file.let_go(is_lost=not self._is_done)
