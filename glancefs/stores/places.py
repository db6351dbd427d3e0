# SPDX-License-Identifier: Apache-2.0
"""Where the file store keeps what: the paths of uploads and of data, in a folder that stays the one it was.

Answers for keys as file names, and for noticing that the folder is gone or somebody else's. Does not open data.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from glancefs.errors import DataMissing, StoreUnavailable
from glancefs.model import Location
from glancefs.stores.disk import border, make_folder, translated
from glancefs.stores.owner import Owner

_log = logging.getLogger(__name__)

KEY: Final = re.compile(r"[0-9a-f]{32}")
_KEY_LENGTH: Final = 32
_BLOCK: Final = 512
"""What stat(2) counts in, in bytes."""
FOLDER: Final = re.compile(r"[0-9a-f]{2}")


class Places:
    """The places in the folder ``path`` of the store ``scheme``; ``owner`` as for the store."""

    def __init__(self, path: Path, *, scheme: str, owner: Owner | None, sync: bool) -> None:
        self.path: Final = path
        self.incoming_folder: Final = path / "incoming"
        self._text: Final = str(path)
        self._scheme: Final = scheme
        self._owner: Final = owner
        self._sync: Final = sync
        self._is_ours = False
        self._root = self._find_root()

    def incoming(self, key: str) -> Path:
        """Give the place of an upload."""
        return self.incoming_folder / key

    def data(self, key: str) -> Path:
        """Give the place of complete data."""
        return self.path / key[:2] / key

    def location(self, key: str) -> Location:
        """Give the location that a registry keeps."""
        return Location(store=self._scheme, key=key)

    def is_one(self, location: Location) -> bool:
        """Say whether a location can be one of this store."""
        return location.store == self._scheme and KEY.fullmatch(location.key) is not None

    def check(self, location: Location) -> None:
        """Raise DataMissing for a location that is none of this store's."""
        if not self.is_one(location):
            raise missing(location)

    def status(self, location: Location) -> os.stat_result:
        """Give what the file system says of complete data. Raises DataMissing, StoreUnavailable."""
        self.check(location)
        try:
            # Listings ask this of every file, so no path is made of the text.
            status = os.lstat(f"{self._text}/{location.key[:2]}/{location.key}")
        except FileNotFoundError:
            self.check_root()
            raise missing(location) from None
        except OSError as error:
            raise translated(error, store=self._scheme, doing="looking at data") from error
        if not stat.S_ISREG(status.st_mode):
            raise missing(location)
        return status

    def allocated(self, keys: Iterable[str]) -> Sequence[int | None]:
        """Give the bytes that data take on the disk; None for what can't be told."""
        # A listing asks this of every image.
        found: list[int | None] = []
        root, look = self._text, os.lstat
        for key in keys:
            try:
                is_key = len(key) == _KEY_LENGTH and "/" not in key
                size = look(f"{root}/{key[:2]}/{key}").st_blocks * _BLOCK if is_key else None
            except OSError:
                size = None
            found.append(size)
        return found

    def make_incoming(self) -> None:
        """Make the folder of uploads, and with it that of the store. Raises OSError."""
        make_folder(self.incoming_folder, sync=self._sync)
        self._root = self._find_root()

    def check_root(self) -> None:
        """See that our folder is the one it was. Raises StoreUnavailable.

        In the place of a disk that was unmounted is a folder too, and what went there would be hidden later.
        """
        if self._root is not None and self._find_root() != self._root:
            _log.error("Store %r: %s is not the folder that it was; is its disk mounted?", self._scheme, self.path)
            raise StoreUnavailable(f"The folder of the store {self._scheme!r} is gone.")

    def check_owner(self) -> None:
        """See that the images here are our registry's. Raises ConfigError."""
        if not self._is_ours and self._owner is not None:
            self._owner.check(self.path, sync=self._sync)
            self._is_ours = True

    def _find_root(self) -> tuple[int, int] | None:
        with border(self._scheme, "looking at its folder"):
            try:
                status = self.path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status.st_dev, status.st_ino


def missing(location: Location) -> DataMissing:
    """Give the error that says that data are not where they should be."""
    return DataMissing(f"The data {location} are not in their store.")
