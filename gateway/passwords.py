# SPDX-License-Identifier: Apache-2.0
"""Passwords of users: the file that keeps their bcrypt hashes, and the checking of one.

Answers for reading the file anew whenever it changed, for checks that cost the same whether the user exists or not, and
for remembering right passwords for a short while, so that not every request costs a bcrypt. What is remembered is a
keyed digest under a key that never leaves the process, and it counts only while the user's entry is the same.

Threading: both classes are shared by all threads. bcrypt lets other threads run; the number of concurrent checks is
bounded, so that a flood of wrong passwords keeps neither all processors nor all threads busy.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Final

import bcrypt

from glancefs.errors import Unavailable

_log = logging.getLogger(__name__)

_ENTRY = re.compile(rb"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_DEFAULT_COST: Final = b"12"
_LONGEST_PASSWORD: Final = 72
"""In bytes: bcrypt looks at no more."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The users of a file at one moment: the bcrypt hash of each, by name."""

    hashes: Mapping[str, bytes]
    nobody: bytes
    """What a user who does not exist is checked against: as costly as the costliest, and no password fits."""


class PasswordFile:
    """A file of lines ``NAME:HASH`` with bcrypt hashes, as Apache's htpasswd -B writes them.

    A file that is not there has no users.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._entries = _entries({})

    def entries(self) -> Entries:
        """Give the users as the file has them at this moment. Raises Unavailable when it can't be read."""
        try:
            stamp = self._stat()
            if stamp != self._stamp:
                with self._lock:
                    if stamp != self._stamp:
                        self._entries = _entries({} if not stamp else self._read())
                        self._stamp = stamp
        except OSError as error:
            _log.error("the file of users can't be read: %s", error)
            message = "The users can't be looked up at present."
            raise Unavailable(message) from None
        return self._entries

    def _stat(self) -> tuple[int, ...]:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a third faster, and asked for with each request
        except FileNotFoundError:
            return ()
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[str, bytes]:
        hashes = {}
        for number, line in enumerate(self._path.read_bytes().splitlines(), start=1):
            if not line.strip() or line.startswith(b"#"):
                continue
            name, _, entry = line.rstrip().partition(b":")
            entry = entry.partition(b":")[0]
            if not _ENTRY.fullmatch(entry):
                _log.warning("line %d of %s is no bcrypt entry; its user can't log in", number, self._path)
                continue
            hashes[name.decode(errors="replace")] = entry
        return hashes


class RememberedPasswords:
    """Checks passwords, and remembers for ``seconds`` after its last use that one was right.

    At most ``checks`` bcrypts run at a time, and ``waiting`` more may wait; further ones are refused until later.
    """

    def __init__(
        self,
        *,
        seconds: float = 60.0,
        most: int = 1024,
        checks: int | None = None,
        waiting: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._under_way: dict[tuple[bytes, bytes], Future[bool]] = {}
        running = checks or max(1, (os.cpu_count() or 1) // 2)
        self._running = threading.Semaphore(running)
        self._places = threading.Semaphore(running + waiting)

    def is_right(self, user: str, password: str, entries: Entries) -> bool:
        """Say whether this is the user's password. Raises Unavailable when too many are being checked already."""
        digest = blake2b(f"{user}\0{password}".encode(), key=self._key, digest_size=32).digest()
        entry = entries.hashes.get(user)
        if entry is not None and self._is_known(digest, entry):
            return True
        is_right = self._check_once(digest, entry or entries.nobody, password)
        if is_right and entry is not None:
            self._remember(digest, entry)
            return True
        return False

    def _is_known(self, digest: bytes, entry: bytes) -> bool:
        now = self._clock()
        with self._lock:
            known = self._known.get(digest)
            if known is None:
                return False
            if known[0] != entry or known[1] < now:
                del self._known[digest]
                return False
            self._known[digest] = (entry, now + self._seconds)
            self._known.move_to_end(digest)
            return True

    def _remember(self, digest: bytes, entry: bytes) -> None:
        with self._lock:
            self._known[digest] = (entry, self._clock() + self._seconds)
            self._known.move_to_end(digest)
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def _check_once(self, digest: bytes, entry: bytes, password: str) -> bool:
        """Check, or wait for the same check that another thread has under way."""
        key = (digest, entry)
        with self._lock:
            other = self._under_way.get(key)
            if other is None:
                mine: Future[bool] = Future()
                self._under_way[key] = mine
        if other is not None:
            return other.result()
        try:
            mine.set_result(self._check(entry, password))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._under_way[key]
        return mine.result()

    def _check(self, entry: bytes, password: str) -> bool:
        if not self._places.acquire(blocking=False):
            message = "Too many passwords are being checked at the moment; try again in a while."
            raise Unavailable(message)
        try:
            with self._running:
                return bcrypt.checkpw(password.encode()[:_LONGEST_PASSWORD], entry)
        except ValueError:
            # A NUL, which no password has.
            return False
        finally:
            self._places.release()


def _entries(hashes: dict[str, bytes]) -> Entries:
    cost = max((entry[4:6] for entry in hashes.values()), default=_DEFAULT_COST)
    # No hash function gives 31 times the same character.
    nobody = b"$2b$" + cost + b"$" + b"." * 22 + b"." * 31
    return Entries(hashes=MappingProxyType(hashes), nobody=nobody)
