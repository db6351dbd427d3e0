# SPDX-License-Identifier: Apache-2.0
"""Files that come whole, from their first byte to their last: they go straight into the store.

Answers for what a whole file becomes at a path, by the same rules as one that a program writes piece by piece
(`glancefs.tree.writing`): it takes the place of what is there, a dot-file is staged, one without a byte is a queued
image. What comes incomplete leaves nothing.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, ImageNotFound, IsAFolder, NotAuthenticated, StoreFull, WrongStatus
from glancefs.formats import SNIFF_SIZE
from glancefs.measure import MeasuredSource, check_size_allowed
from glancefs.model import Image, ImageStatus
from glancefs.paths import is_dot, name_of, path_of, split
from glancefs.rules import check_unprotected, may_change
from glancefs.staging import Said, StagedUpload
from glancefs.stores.base import Source
from glancefs.tree.entries import Entry, EntryKind, staged_entry
from glancefs.tree.locking import Locking
from glancefs.tree.looking import Looking, check_not_reserved
from glancefs.tree.overlay import Overlay
from glancefs.tree.ports import StagingArea, TreeFolders, TreeImages
from glancefs.tree.publishing import changes_of, new_image

_BLOCK: Final = 1 << 20

Check = Callable[[Entry | None], None]
"""What is to hold of what is at the path (None: nothing) for the data to be asked for; it raises otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What became of a whole file."""

    entry: Entry
    is_new: bool
    """Whether there was nothing at its path before."""


class Incoming:
    """Data on their way in, and what is said of them; their first bytes can be looked at before they are taken.

    ``at_end`` is called when all of them were taken; what it raises keeps them from being kept.
    """

    def __init__(self, source: Source, *, said: Said, at_end: Callable[[], None]) -> None:
        self._source: Final = source
        self._at_end: Final = at_end
        self._head = b""
        self._position = 0
        self.said: Final = said
        self.size = 0
        """0 until they are there: who needs the size before is told it with the image."""

    def look(self) -> bytes:
        """Give the first bytes, enough to tell the type. Raises what the source raises."""
        head = memoryview(bytearray(SNIFF_SIZE))
        count = 0
        while count < len(head) and (came := self._source.readinto(head[count:])):
            count += came
        self._head = bytes(head[:count])
        return self._head

    def read_at(self, offset: int, size: int) -> bytes:
        """Give what is known of the data already."""
        return self._head[offset : offset + size]

    def readinto(self, buffer: memoryview, /) -> int:
        """Give what comes next, from the first byte on."""
        if self._position < len(self._head):
            count = min(len(buffer), len(self._head) - self._position)
            buffer[:count] = self._head[self._position : self._position + count]
            self._position += count
            return count
        count = self._source.readinto(buffer)
        if not count and len(buffer):
            self._at_end()
        return count


class Putting:
    """What takes whole files into the tree of one caller."""

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        staging: StagingArea,
        overlay: Overlay,
        looking: Looking,
        locking: Locking,
        context: RequestContext,
        is_public: bool | None,
        max_upload: int | None,
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._staging: Final = staging
        self._overlay: Final = overlay
        self._looking: Final = looking
        self._locking: Final = locking
        self._context: Final = context
        self._is_public: Final = is_public
        self._max_upload: Final = max_upload

    def put(
        self, path: str, source: Source, *, size: int | None, said: Said, checksum: str | None, check: Check
    ) -> Put:
        """Take a whole file; see `ImageTree.put`."""
        check_not_reserved(path)
        name_of(path)
        if self._context.user is None:
            raise NotAuthenticated("Only a known user may add images: log in.")
        entry = self._looking.find(path)
        check(entry)
        if entry is None:
            self._looking.need_folder(split(path)[0])
        else:
            self._check_replaceable(entry)
        self._locking.check(path, None if entry is None else entry.image, is_bound=entry is None)
        check_size_allowed(size or 0, most=self._max_upload)
        incoming = Incoming(source, said=said, at_end=lambda: check(self._looking.find(path)))
        if (entry is None and is_dot(path)) or (entry is not None and entry.staged is not None):
            return Put(entry=self._stage(path, incoming, size, entry), is_new=entry is None)
        self._check_room(size)
        if size == 0 or not incoming.look():
            image = self._put_nothing(path, incoming, entry)
        else:
            image = self._put_data(path, incoming, size, checksum, entry)
        return Put(entry=self._looking.image_entry(path, image), is_new=entry is None)

    # ---- what may be

    def _check_replaceable(self, entry: Entry) -> None:
        if entry.kind is EntryKind.FOLDER:
            raise IsAFolder(f"{entry.path!r} is a folder.")
        image = entry.image
        if image is None:
            return
        if not may_change(self._context, image):
            raise Forbidden(f"Image {image.id!r} belongs to somebody else.")
        if entry.kind is EntryKind.IMAGE:
            check_unprotected(image)
        elif image.status is ImageStatus.SAVING:
            raise WrongStatus(f"Image {image.id!r} takes no data: its status is {image.status}.")

    def _check_room(self, size: int | None) -> None:
        if size and (space := self._images.space()) is not None and size > space.free:
            raise StoreFull(f"There is no room for {size} bytes.")

    # ---- the ways

    def _put_data(
        self, path: str, incoming: Incoming, size: int | None, checksum: str | None, entry: Entry | None
    ) -> Image:
        before = None if entry is None else entry.image
        if before is not None and before.status is ImageStatus.QUEUED:
            changes = changes_of(incoming, before)
            if before.size and size is not None and before.size != size:
                # As on a mount, where who writes makes a placeholder as large as it is.
                self._images.declare_size(self._context, before.id, size)
            return self._images.upload(
                self._context, before.id, incoming, size=size, checksum=checksum, changes=changes
            )
        new = new_image(
            incoming,
            name=name_of(path) if before is None else before.name,
            replaced=before,
            is_public=self._is_public,
            is_complete=True,
            dropped=(),
            checksum=checksum,
        )
        replacing = None if before is None else before.id
        image = self._images.add(self._context, new, incoming, size=size, replacing=replacing)
        self._come_last(path, image)
        return image

    def _put_nothing(self, path: str, incoming: Incoming, entry: Entry | None) -> Image:
        before = None if entry is None else entry.image
        if before is not None and before.status is ImageStatus.QUEUED:
            if before.size:
                self._images.declare_size(self._context, before.id, 0)
            return self._images.update(self._context, before.id, changes_of(incoming, before))
        new = new_image(
            incoming,
            name=name_of(path) if before is None else before.name,
            replaced=before,
            is_public=self._is_public,
            is_complete=False,
            dropped=(),
        )
        return self._images.create(self._context, new, replacing=None if before is None else before.id)

    def _come_last(self, path: str, image: Image) -> None:
        """Take the place of what another upload brought to the same path in the meantime: the last one stays."""
        if path != path_of(image.name):
            return
        other = self._folders.first_named(self._context, image.name)
        if other is not None and other.id != image.id and may_change(self._context, other) and not other.protected:
            with suppress(ImageNotFound):
                self._images.delete(self._context, other.id)

    def _stage(self, path: str, incoming: Incoming, size: int | None, entry: Entry | None) -> Entry:
        staged = self._staging.create(path)
        try:
            self._fill(staged, MeasuredSource(incoming, size=size, most=self._max_upload))
            staged.know(said=incoming.said)
            self._overlay.replace(path, staged)
        except BaseException:
            staged.discard()
            self._staging.forget(staged)
            raise
        if entry is not None and entry.staged is not None:
            entry.staged.discard()
        return staged_entry(path, staged)

    @staticmethod
    def _fill(staged: StagedUpload, source: Source) -> None:
        block = memoryview(bytearray(_BLOCK))
        offset = 0
        while count := source.readinto(block):
            offset += staged.write_at(offset, block[:count])
