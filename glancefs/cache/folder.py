# SPDX-License-Identifier: Apache-2.0
"""The folder of a cache: what lies where, who may change what is there, and what it takes of the disk.

Answers for names and for the lock under which files come and go, which all processes that share the folder respect. An
image's data lie in a file named for its checksum, sparse until all of it is here; its index, beside it, is there as
long as it is not whole and verified. A file without an index is trusted only if it also bears the time that marks it:
whoever writes to a file changes that time.

Threading: `lock` may be held by one thread at a time; the rest may be called from many.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from glancefs.errors import ConfigError

MARK: Final = 1_000_000_000_000_000_000
"""In nanoseconds since the epoch: the time of modification of what is whole and verified."""

_LAYOUT: Final = "blocks-1"
"""The folder within the folder; another layout gets another name."""
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_CHECKSUM: Final = re.compile(r"sha256:([0-9a-f]{64})")
_TAG: Final = "Signature: 8a477f597d28d172789f06886806bc55\n# What glancefs keeps here it can fetch again.\n"
"""So that backups leave it out (Cache Directory Tagging Specification)."""
_UNIT: Final = 512
"""What st_blocks counts in (stat(2))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image in the folder."""

    name: str
    used_at: int
    """In nanoseconds since the epoch."""
    allocated: int
    """What it takes of the disk, in bytes."""


class Folder:
    """The folder, made if it is not there. Raises ConfigError for one that can't be used."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._place: Final = path / _LAYOUT
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._place.mkdir(mode=0o700, exist_ok=True)
            tag = path / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_text(_TAG)
            if self._place.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(self._place.lstat().st_mode):
                message = f"The cache in {path} is another user's; each user needs a cache of their own."
                raise ConfigError(message)
            self._descriptor: Final = os.open(
                self._place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            message = f"The cache in {path} can't be used: {error.strerror or error}."
            raise ConfigError(message) from None
        self._turn: Final = Lock()

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._descriptor)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to add and remove files. Raises OSError where the file system has no locks."""
        with self._turn:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def data(self, name: str) -> Path:
        """Give the place of an image's data."""
        return self._place / name

    def index(self, name: str) -> Path:
        """Give the place of the index of an image that is not whole."""
        return self._place / f"{name}.index"

    def images(self) -> list[Found]:
        """Give the images that are here, the one that was used longest ago first. Raises OSError."""
        found = []
        with os.scandir(self._place) as entries:
            for entry in entries:
                if not _NAME.fullmatch(entry.name):
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    allocated = _UNIT * (status.st_blocks + _blocks(self.index(entry.name)))
                    found.append(Found(name=entry.name, used_at=status.st_atime_ns, allocated=allocated))
        return sorted(found, key=lambda image: image.used_at)

    def remove(self, name: str) -> None:
        """Remove an image; call it under the lock. Raises OSError."""
        # In this order, so that data without an index are never ones that are not whole.
        self.data(name).unlink(missing_ok=True)
        self.index(name).unlink(missing_ok=True)

    def remove_unused(self, name: str) -> bool:
        """Remove an image unless somebody has it open; call it under the lock. Raises OSError."""
        try:
            descriptor = os.open(self.data(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            self.remove(name)
        finally:
            os.close(descriptor)
        return True


def name_of(checksum: str | None) -> str | None:
    """Give the name under which an image of this checksum lies; None for one that can't be kept."""
    match = _CHECKSUM.fullmatch(checksum or "")
    return match[1] if match else None


def touch(descriptor: int) -> None:
    """Note that an image is used now. Raises OSError."""
    # Said explicitly: most file systems are mounted so that reading notes it once a day, if at all.
    os.utime(descriptor, ns=(time.time_ns(), os.fstat(descriptor).st_mtime_ns))


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks
    except FileNotFoundError:
        return 0
