# SPDX-License-Identifier: Apache-2.0
"""Which staged files this mount shows where.

Answers for the paths of staged files, and for the folders that they lie in. A staged file hides what else is at its
path.

Threading: thread-safe; nothing in here waits for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Final

from glancefs.errors import PathTaken
from glancefs.paths import join, split
from glancefs.staging import StagedUpload


class Overlay:
    """The staged files of one mount, by path; aborted ones by their name in ``.glance/pending``."""

    def __init__(self) -> None:
        self._lock: Final = Lock()
        self._files: Final[dict[str, dict[str, StagedUpload]]] = {}
        """By folder, then by name."""
        self._aborted: Final[dict[str, StagedUpload]] = {}

    def get(self, path: str) -> StagedUpload | None:
        """Give the staged file at a path."""
        folder, name = split(path)
        with self._lock:
            return self._files.get(folder, {}).get(name)

    def add(self, path: str, staged: StagedUpload) -> None:
        """Show a file at a path. Raises PathTaken when another one is shown there."""
        folder, name = split(path)
        with self._lock:
            if self._files.setdefault(folder, {}).setdefault(name, staged) is not staged:
                raise PathTaken(f"There is something at {path!r} already.")

    def replace(self, path: str, staged: StagedUpload) -> None:
        """Show a file at a path instead of what is shown there."""
        folder, name = split(path)
        with self._lock:
            self._files.setdefault(folder, {})[name] = staged

    def remove(self, path: str, staged: StagedUpload) -> None:
        """Show a file at a path no longer."""
        folder, name = split(path)
        with self._lock:
            files = self._files.get(folder, {})
            if files.get(name) is staged:
                del files[name]
                if not files:
                    del self._files[folder]

    def in_folder(self, folder: str) -> Sequence[tuple[str, StagedUpload]]:
        """Give the names and files right in a folder."""
        with self._lock:
            return sorted(self._files.get(folder, {}).items())

    def folders_in(self, folder: str) -> set[str]:
        """Give the names of the folders in a folder in which, at any depth, something is staged."""
        prefix = join(folder, "")
        with self._lock:
            return {
                other[len(prefix) :].split("/", 1)[0] for other in self._files if other and other.startswith(prefix)
            }

    def has_below(self, folder: str) -> bool:
        """Say whether something is staged in a folder, at any depth."""
        with self._lock:
            return any(other == folder or other.startswith(join(folder, "")) for other in self._files)

    def below(self, folder: str) -> Sequence[tuple[str, StagedUpload]]:
        """Give the paths and files in a folder, at any depth."""
        with self._lock:
            return [
                (join(other, name), staged)
                for other, files in self._files.items()
                if other == folder or other.startswith(join(folder, ""))
                for name, staged in files.items()
            ]

    def add_aborted(self, staged: StagedUpload) -> str:
        """Show a file in ``.glance/pending``, and give its name there: its own, unless another one has that."""
        name = split(staged.path)[1]
        with self._lock:
            if name in self._aborted:
                name = f"{name[:80]}~{staged.key}"
            self._aborted[name] = staged
        return name

    def aborted(self, name: str) -> StagedUpload | None:
        """Give the file of a name in ``.glance/pending``."""
        with self._lock:
            return self._aborted.get(name)

    def all_aborted(self) -> Sequence[tuple[str, StagedUpload]]:
        """Give everything in ``.glance/pending``."""
        with self._lock:
            return sorted(self._aborted.items())

    def remove_aborted(self, staged: StagedUpload) -> None:
        """Take a file out of ``.glance/pending``."""
        with self._lock:
            for name in [name for name, other in self._aborted.items() if other is staged]:
                del self._aborted[name]

    def everything(self) -> Sequence[StagedUpload]:
        """Give all staged files, aborted ones too."""
        with self._lock:
            return [*(staged for files in self._files.values() for staged in files.values()), *self._aborted.values()]
