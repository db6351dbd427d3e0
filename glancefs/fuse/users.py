# SPDX-License-Identifier: Apache-2.0
"""Who of this machine is which user of glancefs: from the number that the kernel says to a name, and back.

Answers for that mapping: by the names of the password database, or by a table; root, and who mounts, are the admin of
this machine in either case, unless the table says otherwise. Who is neither is nobody, and sees what is public. What a
user may do, the tree knows.

Threading: every method may be called from many threads. Those that say so may wait for the password database, which may
be on another machine.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glancefs.context import ANONYMOUS, LOCAL_USER, RequestContext
from glancefs.errors import ConfigError

ROOT: Final = 0
NOBODY: Final = 65534
"""Whose the files of users seem to be who are nobody on this machine: the kernel's own overflow number."""
_KNOWN_FOR: Final = 60.0
"""Seconds for which an answer of the password database is taken for what it says now."""
_LINE: Final = re.compile(r"(\S+)\s+(\S.*)")
_ADMIN: Final = RequestContext(user=LOCAL_USER, is_admin=True)


@dataclass(frozen=True, slots=True)
class Ids:
    """Whose a file is, for the kernel."""

    uid: int
    gid: int


class Users:
    """The users of one mount. ``table`` has a name for each number that has one; None: as the password database."""

    def __init__(self, *, table: Mapping[int, str] | None = None) -> None:
        self._table: Final = table
        self._numbers: Final = None if table is None else {name: uid for uid, name in table.items()}
        self._contexts: Final[dict[int, tuple[float, RequestContext]]] = {}
        self._ids: Final[dict[str, tuple[float, Ids]]] = {}

    def known(self, uid: int) -> RequestContext | None:
        """Give who has this number, if that was found out lately."""
        until, context = self._contexts.get(uid, (0.0, None))
        return context if until > time.monotonic() else None

    def context_of(self, uid: int) -> RequestContext:
        """Give who has this number; may wait."""
        context = self._context(uid)
        self._contexts[uid] = (time.monotonic() + _KNOWN_FOR, context)
        return context

    def ids_of(self, owner: str | None) -> Ids:
        """Give the numbers of the owner of an image, as they were learnt last; may wait where they never were."""
        if not owner:
            return _NO_IDS
        if owner not in self._ids:
            self.learn(owner)
        return self._ids[owner][1]

    def learn(self, owner: str | None) -> None:
        """Find out the numbers of an owner, nobody's for a stranger, unless that was done lately; may wait."""
        if owner and self._ids.get(owner, (0.0, None))[0] <= time.monotonic():
            self._ids[owner] = (time.monotonic() + _KNOWN_FOR, self._find(owner))

    def _context(self, uid: int) -> RequestContext:
        if self._table is not None and uid in self._table:
            return RequestContext(user=self._table[uid])
        if uid in {ROOT, os.getuid()}:
            return _ADMIN
        if self._table is not None:
            return ANONYMOUS
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            return ANONYMOUS
        # A stranger who happens to be called like the admin of this machine is not the one.
        return ANONYMOUS if name == LOCAL_USER else RequestContext(user=name)

    def _find(self, owner: str) -> Ids:
        try:
            if self._numbers is not None and owner in self._numbers:
                return _ids(self._numbers[owner])
            if owner == LOCAL_USER:
                return Ids(os.getuid(), os.getgid())
            if self._table is not None:
                return _NO_IDS
            found = pwd.getpwnam(owner)
        except (KeyError, ValueError):
            return _NO_IDS
        # What would be somebody else's on the way in is not theirs on the way out.
        return _NO_IDS if found.pw_uid in {ROOT, os.getuid()} else Ids(found.pw_uid, found.pw_gid)


_NO_IDS: Final = Ids(NOBODY, NOBODY)


def _ids(uid: int) -> Ids:
    try:
        return Ids(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        return Ids(uid, NOBODY)


def read_table(file: Path) -> Mapping[int, str]:
    """Read a table: on each line who of this machine, by name or number, and as which user; ``#`` begins a comment.

    Raises ConfigError for one that can't be read, that others could change, or in which somebody is there twice.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            status = os.fstat(opened.fileno())
            text = opened.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        message = f"The table of users {file} can't be read: {reason}."
        raise ConfigError(message) from None
    if status.st_uid not in {ROOT, os.getuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = f"{file} says who is who, and others could change it: it must be root's or yours, with mode 0644."
        raise ConfigError(message)
    table: dict[int, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if line:
            uid, user = _read_line(line, f"{file}, line {number}")
            if uid in table or user in table.values():
                message = f"{file}, line {number}: {line[:80]!r} names somebody for the second time."
                raise ConfigError(message)
            table[uid] = user
    return table


def _read_line(line: str, where: str) -> tuple[int, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        message = f"{where}: a line names somebody of this machine and a user, not {line[:80]!r}."
        raise ConfigError(message)
    name, user = found.groups()
    if name.isascii() and name.isdigit():
        return int(name), user
    try:
        return pwd.getpwnam(name).pw_uid, user
    except KeyError:
        message = f"{where}: there is no {name[:80]!r} on this machine."
        raise ConfigError(message) from None
