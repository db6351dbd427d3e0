# SPDX-License-Identifier: Apache-2.0
"""The file that a database is kept in: that it is still the same one, and that there is room to delete images.

Answers for noticing that the file was removed or replaced under us (SQLite would go on in a file that has no name, and
whatever it confirmed would be gone with the process), and for a little room that is set aside beside the database: on a
full disk not even the note that an image is deleted could be written, though deleting is what makes room. Knows no SQL.

Threading: may be used from many threads and processes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from glancefs.errors import ConfigError, RegistryUnavailable

RESERVE: Final = 1 << 20
"""In bytes: the notes of a dozen deleted images."""


class DatabaseFile:
    """One database's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reserve = path.with_name(path.name + "-reserve")
        self._known: tuple[int, int] | None = None

    def make(self) -> None:
        """Make the file, and the folders that are missing, for this user alone; leave what exists as it is."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError(f"The registry's database {self.path} can't be made: {error.strerror}.") from None

    def check(self) -> None:
        """See that the file is the one that was there at the first call. Raises RegistryUnavailable."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - a third faster, and asked for with each statement
        except OSError:
            if self._known is None:
                return
            raise RegistryUnavailable("The registry's database was removed while it was in use.") from None
        found = status.st_dev, status.st_ino
        if self._known is None:
            self._known = found
        elif found != self._known:
            raise RegistryUnavailable("The registry's database was replaced by another while it was in use.")

    def set_room_aside(self) -> bool:
        """Keep room for the day when there is none. Gives whether there was enough to set aside."""
        try:
            descriptor = os.open(self._reserve, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            if os.fstat(descriptor).st_size != RESERVE:
                os.posix_fallocate(descriptor, 0, RESERVE)
        except OSError:
            os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)
        return True

    def give_room(self) -> bool:
        """Give up what was set aside. Gives whether there was anything."""
        try:
            had = self._reserve.stat().st_size > 0
            if had:
                os.truncate(self._reserve, 0)
        except OSError:
            return False
        return had
