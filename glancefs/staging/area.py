# SPDX-License-Identifier: Apache-2.0
"""The folder in which files are staged, shared by all mounts of a store.

Answers for which mount has which staged files, for taking over what a dead mount left, and for sweeping what nobody
came back for. Does not know images.

Threading: every method may be called from many threads and processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from glancefs.staging.upload import StagedUpload


class Staging:
    """The staged files of one mount, in ``folder``, which should be on the store's own file system.

    ``keep_for``: how long files that no mount has come back for are kept.
    """

    def __init__(self, *, folder: Path, user: str | None, max_upload: int | None = None, keep_for: timedelta) -> None:
        """Make no file yet."""

    def create(self, path: str) -> StagedUpload:
        """Begin an empty file that is to be seen at a path. Raises StoreFull, StoreUnavailable."""

    def recover(self) -> Sequence[StagedUpload]:
        """Take over what dead mounts of the same user left, as ABORTED, and sweep what is too old."""

    def close(self) -> None:
        """Let go of everything; files that are neither published nor discarded stay for the next mount."""
