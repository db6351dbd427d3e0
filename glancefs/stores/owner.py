# SPDX-License-Identifier: Apache-2.0
"""Whose images a folder keeps.

Answers for one folder being the store of one registry: to the sweep of any other all its images would be orphans, so
one configuration with a wrong path, or a registry that was lost and made anew, would cost every image. A note in the
folder tells the registry (`glancefs.registries.base.Registry.identity`). Does not know what else lies there.

Threading: may be used from many threads and processes.
"""

from __future__ import annotations

import os
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
        try:
            found = note.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            found = ""
        if found == self.registry:
            return
        if found:
            raise ConfigError(
                f"{folder} keeps the images of another registry than the one that is configured. "
                f"If that one is lost for good, remove {note}."
            )
        make_folder(folder, sync=sync)
        if self.has_images and not any(folder.iterdir()):
            raise ConfigError(
                f"{folder} is empty, and the registry names images in it: is its disk mounted? "
                f"If they are lost for good, make {note}."
            )
        _write(note, f"{self.registry}\n".encode(), sync=sync)


def _write(note: Path, text: bytes, *, sync: bool) -> None:
    # Complete before it has its name: who finds it empty would take it for nobody's.
    new = note.with_name(f"{note.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, text)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(note)
    if sync:
        sync_folder(note.parent)
