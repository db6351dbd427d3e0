# SPDX-License-Identifier: Apache-2.0
"""Whose images a folder keeps.

Answers for one folder being the store of one registry: to the sweep of any other all its images would be orphans, so
one configuration with a wrong path, or a registry that was lost and made anew, would cost every image. A note in the
folder tells the registry (`glancefs.registries.base.Registry.identity`). Does not know what else lies there.

Threading: may be used from many threads and processes.
"""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glancefs.errors import ConfigError
from glancefs.stores.disk import make_folder, sync_folder

NOTE: Final = "registry"
"""The name of the note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A registry, to the folder that keeps its images."""

    registry: str
    """Its identity."""
    has_images: bool
    """Whether it names data in the folder already."""

    def check(self, folder: Path, *, sync: bool) -> None:
        """See that a folder keeps the images of this registry, as it does from now on if it was nobody's.

        Raises ConfigError where it keeps those of another one, or nothing though it should; OSError.
        """
        note = folder / NOTE
        if self._is_noted(note):
            return
        make_folder(folder, sync=sync)
        if self.has_images and not any(folder.iterdir()):
            raise ConfigError(
                f"{folder} is empty, and the registry names images in it: is its disk mounted? "
                f"If they are lost for good, make {note}."
            )
        if not _write(note, f"{self.registry}\n".encode(), sync=sync):
            # Somebody else was faster: another thread of ours, as a rule.
            self._is_noted(note)

    def _is_noted(self, note: Path) -> bool:
        """Say whether the note names this registry; False where nobody is named. Raises ConfigError for another one."""
        try:
            found = note.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return False
        if found and found != self.registry:
            raise ConfigError(
                f"{note.parent} keeps the images of another registry than the one that is configured. "
                f"If that one is lost for good, remove {note}."
            )
        return bool(found)


def _write(note: Path, text: bytes, *, sync: bool) -> bool:
    """Write the note; False where one that says something is there by now, which stays."""
    # Complete before it has its name, of many writers at once exactly one gets it: hence a name for each, and link(2).
    new = note.with_name(f"{note.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, text)
        if sync:
            os.fsync(descriptor)
        try:
            os.link(new, note)
        except FileExistsError:
            if note.stat().st_size:
                return False
            # An empty note is how an operator says that the folder may be taken.
            new.rename(note)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP}:
                raise
            # A file system without hard links, as of a memory stick.
            new.rename(note)
    finally:
        os.close(descriptor)
        new.unlink(missing_ok=True)
    if sync:
        sync_folder(note.parent)
    return True
