# SPDX-License-Identifier: Apache-2.0
"""The tree as a door shows it whose requests are whole: files come and go in one piece, folders with all in them.

Answers for what such a door does besides what a mount does. The rules are those of the tree.

Threading: belongs to one request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from glancefs.errors import Forbidden, NotAuthenticated
from glancefs.staging import Said
from glancefs.stores.base import Source
from glancefs.tree import describing
from glancefs.tree.attributes import PREFIX
from glancefs.tree.clearing import Clearing, Stayed
from glancefs.tree.entries import Entry, staged_entry
from glancefs.tree.looking import check_not_reserved
from glancefs.tree.putting import Check, Put, Putting
from glancefs.tree.tree import ImageTree


class SharedTree(ImageTree):
    """An `ImageTree`, made like one; ``max_upload`` is the size in bytes of the largest file that `put` takes."""

    def __init__(self, *, max_upload: int | None = None, **made: Any) -> None:  # noqa: ANN401 - as for ImageTree
        super().__init__(**made)
        self._made: Final = {**made, "max_upload": max_upload}
        self._max_upload: Final = max_upload

    @cached_property
    def _putting(self) -> Putting:
        """Made when it is needed: most requests read."""
        return Putting(
            images=self._images,
            folders=self._folders,
            staging=self._staging,
            overlay=self._begun.overlay,
            looking=self._looking,
            locking=self._locking,
            context=self._context,
            is_public=self._is_public,
            max_upload=self._max_upload,
        )

    def presenting(self, lock_tokens: Collection[str]) -> SharedTree:
        """Give the same tree for what is done with tokens of locks; see `ImageTree.presenting`."""
        return SharedTree(**self._made | {"context": replace(self._context, lock_tokens=frozenset(lock_tokens))})

    def put(
        self,
        path: str,
        source: Source,
        *,
        size: int | None = None,
        said: Said | None = None,
        checksum: str | None = None,
        check: Check = lambda _: None,
    ) -> Put:
        """Take a whole file, of ``size`` bytes if that is known, to a path: it takes the place of what is there.

        It goes straight into the store, but a dot-file is staged; one without a byte is a queued image, and one onto a
        queued image is its data. ``check`` is called with what is there (None: nothing) before anything is read, and
        once more when all is: an upload takes long. Whatever can be refused before the first byte is. Raises what
        ``check`` and ``source`` raise, SizeMismatch, ChecksumMismatch, PathNotFound and NotAFolder for its folder,
        IsAFolder, Forbidden, ProtectedImage, NotAuthenticated, WrongStatus, StoreFull, UploadTooLarge; then everything
        is as it was.
        """
        return self._putting.put(path, source, size=size, said=said or Said(), checksum=checksum, check=check)

    def clear(self, path: str) -> Sequence[Stayed]:
        """Remove a folder with everything in it, one by one; give what had to stay, and why.

        Raises PathNotFound, NotAFolder, Forbidden (the root, ``.glance``), NotAuthenticated.
        """
        check_not_reserved(path)
        if not path:
            raise Forbidden("The root stays.")
        if self._context.user is None:
            raise NotAuthenticated("Only a known user may remove images: log in.")
        clearing = Clearing(images=self._images, looking=self._looking, moving=self._moving, context=self._context)
        return clearing.clear(path)

    def check_attribute(self, entry: Entry, field: str, text: str | None) -> None:
        """Raise what setting an attribute to a text, or removing it (None), would; ``field`` is without the prefix."""
        describing.check(self._context, entry, field, text, public_url=self._public_url)

    def describe(self, entry: Entry, values: Mapping[str, str | None]) -> Entry:
        """Set several attributes, and remove those whose text is None, in one step; the name last, in one of its own.

        Names are without the prefix. Removing what is not there is fine. Raises as `set_xattr` does.
        """
        for field, text in values.items():
            self.check_attribute(entry, field, text)
        if entry.staged is not None:
            entry.staged.know(said=describing.said_with(entry, values))
            return staged_entry(entry.path, entry.staged)
        assert entry.image is not None  # noqa: S101 - checked above
        entry = self._updated(entry, entry.image, describing.changes_of(entry.image, values))
        name = values.get("name")
        if name is None or entry.image is None or name == entry.image.name:
            return entry
        return self._moving.rename_image(entry, name)

    def attributes(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """Give all attributes, without their prefix, and their texts."""
        for name in self.list_xattrs(entry):
            yield name.removeprefix(PREFIX), self.get_xattr(entry, name).decode()

    def check_unlocked(self, path: str) -> None:
        """Raise Locked where a lock is in the way of replacing or removing what is at a path, or of adding it."""
        self._locking.check_all(path)
