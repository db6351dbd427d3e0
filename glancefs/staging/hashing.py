# SPDX-License-Identifier: Apache-2.0
"""The checksum of a file that is being written, computed beside the writing as long as that goes forward.

Answers for a checksum that is always the file's, in whatever order it was written: what comes in ascending order is
hashed by a thread of a pool, which reads it back from the page cache; once something is written that was hashed before,
the whole file is hashed at the end.

Threading: methods may be called from many threads; none of them waits for hashing but `finish`.
"""

from __future__ import annotations

from concurrent.futures import Executor
from threading import Condition
from typing import Final

from glancefs.frontier import Frontier
from glancefs.stores.pipeline import checksum_text, sha256
from glancefs.stores.reading import checksum_of, hash_range

AT_ONCE: Final = 4 << 20
"""From how many bytes on hashing beside is worth a hop to another thread; a smaller file is hashed at its end."""


class RunningChecksum:
    """The checksum of an open file, which only its users write to: they say where before, and when it is done."""

    def __init__(self, *, descriptor: int, executor: Executor) -> None:
        self._descriptor: Final = descriptor
        self._executor: Final = executor
        self._changed: Final = Condition()
        self._digest = sha256()
        self._frontier: Final = Frontier()
        """What is taken of it is hashed, or being hashed."""
        self._is_busy = False

    def begin_write(self, offset: int) -> None:
        """Say that a write is about to begin here."""
        with self._changed:
            self._frontier.begin_write(offset)

    def end_write(self, offset: int, end: int) -> None:
        """Say that this write is over, and up to where it came."""
        frontier = self._frontier
        with self._changed:
            frontier.end_write(offset, end)
            if self._is_busy or not frontier.is_valid or frontier.reliable - frontier.taken < AT_ONCE:
                return
            self._is_busy = True
        self._executor.submit(self._catch_up)

    def truncate(self, size: int) -> None:
        """Say that the file is about to get this size."""
        with self._changed:
            self._frontier.cut(size)
            if not size and not self._is_busy:
                self._digest = sha256()
                self._frontier.start_anew()

    def finish(self, size: int) -> str:
        """Give the checksum of the file, of this size, into which nobody writes any more. Raises OSError."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_busy)
            if not self._frontier.is_valid:
                return checksum_of(self._descriptor)
            digest = self._digest.copy()
            hash_range(digest, self._descriptor, start=self._frontier.taken, stop=size)
            return checksum_text(digest)

    def _catch_up(self) -> None:
        """Hash what has come since, until little of it is left."""
        # As large as what is hashed at once: each call that lets go of the interpreter has to wait for it again, and
        # the loop of a mount that is being written to is a busy neighbour.
        room = memoryview(bytearray(AT_ONCE))
        frontier = self._frontier
        while True:
            with self._changed:
                if not frontier.is_valid or frontier.reliable - frontier.taken < AT_ONCE:
                    self._is_busy = False
                    self._changed.notify_all()
                    return
                start, stop = frontier.take(AT_ONCE)
            try:
                hash_range(self._digest, self._descriptor, start=start, stop=stop, room=room)
            except OSError:
                # The file was cut meanwhile, or can't be read: the end will tell which.
                with self._changed:
                    frontier.is_valid = False
