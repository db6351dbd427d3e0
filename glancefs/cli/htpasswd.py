# SPDX-License-Identifier: Apache-2.0
"""The file of users, changed: lines ``NAME:BCRYPT``, as Apache's ``htpasswd -B`` writes them.

Answers for changes that are whole or not there, one at a time, in a file that nobody else can read. Lines of others
and comments stay as they are. Checking passwords is the gateway's.

Threading: changes of all threads and processes wait for each other, by a lock on the folder that the file lies in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import bcrypt

from glancefs.errors import ConfigError, InvalidRequest

LONGEST_PASSWORD: Final = 72
"""In bytes of UTF-8: bcrypt looks at no more."""
LONGEST_NAME: Final = 255


class Htpasswd:
    """One file of users; a file that is not there has none."""

    def __init__(self, *, path: Path, cost: int = 12) -> None:
        self._path = path
        self._cost = cost

    def names(self) -> list[str]:
        """Give the users' names in the file's order. Raises ConfigError."""
        return [name for line in self._read() if (name := _name_of(line))]

    def put(self, name: str, password: str) -> bool:
        """Give a user a password; gives whether the user is new. Raises InvalidRequest, ConfigError."""
        _check_name(name)
        check_password(password)
        entry = f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)).decode()}"

        def change(lines: list[str]) -> list[str]:
            if name not in map(_name_of, lines):
                return [*lines, entry]
            return [entry if _name_of(line) == name else line for line in lines]

        return self._change(change)

    def remove(self, name: str) -> bool:
        """Remove a user; gives whether there was one. Raises ConfigError."""
        return self._change(lambda lines: [line for line in lines if _name_of(line) != name])

    def _change(self, change: Callable[[list[str]], list[str]]) -> bool:
        """Write what ``change`` makes of the lines; gives whether their number changed."""
        with self._locked():
            before = self._read()
            after = change(before)
            if after != before:
                self._write(after)
        return len(after) != len(before)

    def _read(self) -> list[str]:
        try:
            # Bytes that are no UTF-8 go back as they came.
            return self._path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(error) from None

    def _write(self, lines: list[str]) -> None:
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{line}\n" for line in lines)
                self._keep_owner(file.fileno())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise self._failed(error) from None

    def _keep_owner(self, descriptor: int) -> None:
        """Leave the file to whom it belonged: root may maintain it for a server that is not root."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            before = self._path.stat()
            os.fchown(descriptor, before.st_uid, before.st_gid)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The folder, since the file itself is replaced and a lock file would stay behind.
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _failed(self, error: OSError) -> ConfigError:
        return ConfigError(f"The file of users {self._path} can't be used: {error.strerror}.")


def check_password(password: str) -> str:
    """Give the password back. Raises InvalidRequest for one that can't be."""
    if not password or "\0" in password:
        raise InvalidRequest("A password is not empty and holds no NUL.")
    if len(password.encode()) > LONGEST_PASSWORD:
        message = f"A password is at the most {LONGEST_PASSWORD} bytes long."
        raise InvalidRequest(message)
    return password


def _check_name(name: str) -> None:
    is_fine = 0 < len(name) <= LONGEST_NAME and ":" not in name and name.isprintable() and name == name.strip()
    if not is_fine or name.startswith("#"):
        message = f"{name[:80]!r} can't be the name of a user: no colon, no control characters, no # in front."
        raise InvalidRequest(message)


def _name_of(line: str) -> str | None:
    if not line.strip() or line.startswith("#") or ":" not in line:
        return None
    return line.partition(":")[0]
