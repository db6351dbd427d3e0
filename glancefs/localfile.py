# SPDX-License-Identifier: Apache-2.0
"""An upload that lies complete in a local file: a store that can takes the file over, the others read it.

Answers for handing such a file on, and for having it back when the upload fails. Does not make the file:
`glancefs.staging` and `glancefs.arrivals` do.

Threading: belongs to one upload.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeGuard

from glancefs.stores.base import AdoptingStore, Source, Store

_log = logging.getLogger(__name__)


class LocalFile:
    """A complete file, open as ``descriptor``, which stays the caller's; nobody writes into it any more.

    Its ``checksum`` is trusted.
    """

    def __init__(self, *, path: Path, descriptor: int, size: int, checksum: str) -> None:
        self.path: Final = path
        self.size: Final = size
        self.checksum: Final = checksum
        self._descriptor: Final = descriptor
        self._position = 0
        self._adopting: dict[Store, bool] = {}

    def readinto(self, buffer: memoryview, /) -> int:
        """Give what comes next, as a `glancefs.stores.base.Source`."""
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give all data from their beginning, in pieces of at most so many bytes; may be asked for again."""
        position = 0
        while position < self.size:
            piece = os.pread(self._descriptor, min(size, self.size - position), position)
            if not piece:
                message = f"{self.path} ends at byte {position}, not at {self.size}."
                raise EOFError(message)
            yield piece
            position += len(piece)

    def can_be_adopted(self, store: Store) -> TypeGuard[AdoptingStore]:
        """Say whether the store can take the file over as it is."""
        known = self._adopting.get(store)
        if known is None:
            known = self._adopting[store] = self._is_beside(store)
        return known

    def _is_beside(self, store: Store) -> bool:
        folder = store.staging_folder
        if not store.capabilities.adopts_files or folder is None:
            return False
        with suppress(FileNotFoundError):
            return folder.stat().st_dev == os.fstat(self._descriptor).st_dev
        return False

    def claim(self, store: AdoptingStore) -> AbstractContextManager[str]:
        """Claim a key of a store that can adopt it, together with it."""
        return store.claim_file(self.path)

    def give_back(self) -> None:
        """Have the file at its path again, as long as its data have some other name."""
        if self.path.exists():
            return
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # With a folder's descriptor this is linkat(2), which alone follows such a link (open(2), O_TMPFILE).
                os.link(f"/proc/self/fd/{self._descriptor}", self.path.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        except OSError as error:
            _log.error("The data of a failed upload are lost, %s can't be made again: %s", self.path, error)


class UnnamedFile(LocalFile):
    """One that has no name (open(2), O_TMPFILE): the first that it gets is the store's, and it is never given back."""

    def __init__(self, *, descriptor: int, size: int, checksum: str) -> None:
        super().__init__(path=Path(f"/proc/self/fd/{descriptor}"), descriptor=descriptor, size=size, checksum=checksum)

    def claim(self, store: AdoptingStore) -> AbstractContextManager[str]:
        """Claim a key for it."""
        return store.claim_unnamed(self._descriptor)

    def give_back(self) -> None:
        """Do nothing: it goes when its descriptor does."""


def give_back(source: Source | None) -> None:
    """Give a local file back whose upload failed; other sources have nothing to be given back."""
    if isinstance(source, LocalFile):
        source.give_back()


@contextmanager
def claim_for(source: Source, store: Store) -> Iterator[str]:
    """Claim a key for the data of a source, for a local file together with the file; what fails gives it back."""
    if not isinstance(source, LocalFile) or not source.can_be_adopted(store):
        with store.claim() as key:
            yield key
        return
    with source.claim(store) as key:
        try:
            yield key
        except BaseException:
            source.give_back()
            raise
