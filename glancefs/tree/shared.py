# SPDX-License-Identifier: Apache-2.0
"""Which staged files a door shows where whose requests come to any of several processes.

Answers for putting `glancefs.staging.shared` in the place of a mount's own memory. Remembers nothing.

Threading: belongs to one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from glancefs.paths import join
from glancefs.staging import StagedUpload
from glancefs.staging.shared import SharedFiles
from glancefs.tree.overlay import Overlay


class SharedOverlay(Overlay):
    """The staged files of one user, by path. Files whose writers were killed are not kept, and so not shown."""

    def __init__(self, *, files: SharedFiles) -> None:
        super().__init__()
        self._shared: Final = files

    def get(self, path: str) -> StagedUpload | None:
        """Give the staged file at a path."""
        return self._shared.find(path)

    def add(self, path: str, staged: StagedUpload) -> None:
        """Show a file at a path. Raises PathTaken when another one is shown there."""
        self._shared.show(path, staged)

    def replace(self, path: str, staged: StagedUpload) -> None:
        """Show a file at a path instead of what is shown there, in one step."""
        self._shared.show(path, staged, replace=True)

    def remove(self, path: str, staged: StagedUpload) -> None:
        """Show a file at a path no longer."""
        self._shared.hide(path, staged)

    def in_folder(self, folder: str) -> Sequence[tuple[str, StagedUpload]]:
        """Give the names and files right in a folder."""
        return sorted(self._shared.in_folder(folder), key=lambda named: named[0])

    def folders_in(self, folder: str) -> set[str]:
        """Give the names of the folders in a folder in which, at any depth, something is staged."""
        prefix = join(folder, "") if folder else ""
        return {
            other[len(prefix) :].split("/", 1)[0]
            for other in self._shared.folders()
            if other and other.startswith(prefix) and other != folder
        }

    def has_below(self, folder: str) -> bool:
        """Say whether something is staged in a folder, at any depth."""
        return any(_is_in(other, folder) for other in self._shared.folders())

    def below(self, folder: str) -> Sequence[tuple[str, StagedUpload]]:
        """Give the paths and files in a folder, at any depth, each of them open."""
        paths = [
            join(other, name)
            for other in self._shared.folders()
            if _is_in(other, folder)
            for name, _ in self._shared.in_folder(other)
        ]
        return [(path, staged) for path in paths if (staged := self._shared.find(path)) is not None]

    def everything(self) -> Sequence[StagedUpload]:
        """Give all staged files."""
        return [staged for _, staged in self.below("")]


def _is_in(other: str, folder: str) -> bool:
    return not folder or other == folder or other.startswith(join(folder, ""))
