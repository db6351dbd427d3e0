# SPDX-License-Identifier: Apache-2.0
"""What is where: which image, folder or staged file a path means, and what a folder holds.

Answers for the order of precedence. At one path a staged file of this mount comes first, then a folder, then an image:
the caller's own before others', and of those the one that was there first. An image that does not get the path of its
name has another one (`glancefs.namesakes`).

Threading: every method may be called from many threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, ImageNotFound, InvalidPath, IsAFolder, NotAFolder, PathNotFound
from glancefs.model import Image
from glancefs.namesakes import has_digest, may_be_cut, namesake_paths, said_digest, said_id
from glancefs.paths import RESERVED, is_reserved, join, name_of, path_of, split
from glancefs.registries.base import ImageQuery
from glancefs.registries.folders import Folder
from glancefs.rules import may_change
from glancefs.tree.entries import Entry, EntryKind, folder_entry, image_entry, staged_entry
from glancefs.tree.overlay import Overlay
from glancefs.tree.ports import TreeFolders, TreeImages

_PAGE: Final = 1000


class Looking:
    """The tree outside ``.glance``, as one caller sees it."""

    def __init__(
        self, *, images: TreeImages, folders: TreeFolders, overlay: Overlay, context: RequestContext, since: int
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._overlay: Final = overlay
        self._context: Final = context
        self._since: Final = since

    def lookup(self, path: str) -> Entry:
        """Give what is at a path. Raises PathNotFound, InvalidPath."""
        if not path:
            return self.folder_entry(Folder(path=""))
        name = name_of(path)
        staged = self._overlay.get(path)
        if staged is not None:
            return staged_entry(path, staged)
        found = self._folders.at(self._context, name)
        if found.folder is not None or self._overlay.has_below(path):
            return self.folder_entry(found.folder or Folder(path=path))
        image = found.image or self._namesake(path)
        if image is None:
            raise PathNotFound.at(path)
        return self.image_entry(path, image)

    def find(self, path: str) -> Entry | None:
        """Give what is at a path, if anything is. Raises InvalidPath."""
        try:
            return self.lookup(path)
        except PathNotFound:
            return None

    def folder(self, path: str) -> Folder | None:
        """Give the folder at a path, if there is one: a staged file's is there too."""
        if not path:
            return Folder(path="")
        folder = self._folders.at(self._context, name_of(path)).folder
        return folder or (Folder(path=path) if self._overlay.has_below(path) else None)

    def need_folder(self, path: str) -> None:
        """Raise PathNotFound, NotAFolder unless there is a folder at a path."""
        if path and self.folder(path) is None:
            self.lookup(path)
            raise NotAFolder(f"{path!r} is no folder.")

    def need_file(self, path: str) -> Entry:
        """Give what is at a path. Raises PathNotFound, IsAFolder."""
        entry = self.lookup(path)
        if entry.kind is EntryKind.FOLDER:
            raise IsAFolder(f"{path!r} is a folder.")
        return entry

    def path_of_image(self, image: Image) -> str:
        """Give the one path at which an image is."""
        path = path_of(image.name)
        if image.id in self._folders.first_of_their_names(self._context, [image.id]) and self.folder(path) is None:
            return path
        return self._namesake_path(image)

    def list(self, path: str, *, page_size: int) -> Iterator[Sequence[Entry]]:
        """Give what a folder holds, in pages: folders, then staged files, then images. Raises as `need_folder` does."""
        self.need_folder(path)
        names: set[str] = set()
        for folders in self._folder_pages(path, page_size):
            names.update(split(folder.path)[1] for folder in folders)
            yield [self.folder_entry(folder) for folder in folders]
        staged_only = sorted(self._overlay.folders_in(path) - names - {RESERVED})
        names.update(staged_only)
        staged = self._overlay.in_folder(path)
        yield [
            *(self.folder_entry(Folder(path=join(path, name))) for name in staged_only),
            *(staged_entry(join(path, name), file) for name, file in staged),
        ]
        hidden = {name for name, _ in staged}
        is_first = True
        for images, is_last in self._image_pages(path, page_size):
            entries = self._entries(path, images, names, is_first=is_first, is_last=is_last)
            yield [entry for entry in entries if entry.name not in hidden]
            is_first = False

    def folder_entry(self, folder: Folder) -> Entry:
        """Give the entry of a folder."""
        return folder_entry(folder, since=self._since)

    def image_entry(self, path: str, image: Image) -> Entry:
        """Give the entry of an image."""
        return image_entry(path, image, is_changeable=may_change(self._context, image))

    # ---- namesakes

    def _namesake(self, path: str) -> Image | None:
        """Give the image that is at a path only because of its id."""
        image_id = said_id(split(path)[1])
        if image_id is None:
            return None
        with suppress(ImageNotFound):
            image = self._images.get(self._context, image_id)
            if self.path_of_image(image) == path:
                return image
        return next((image for image in self._of_digest(path) if self.path_of_image(image) == path), None)

    def _of_digest(self, path: str) -> Iterator[Image]:
        """Give the images for whose identifiers a digest at the end of a path may stand."""
        folder, component = split(path)
        said = said_digest(component)
        if said is None:
            return
        name, digest = said
        images: Iterator[Image]
        if may_be_cut(name):
            images = (image for page, _ in self._image_pages(folder, _PAGE) for image in page)
        else:
            try:
                query = ImageQuery(is_public=None, name=name_of(join(folder, name)))
            except InvalidPath:
                return
            images = self._images.find_all(self._context, query)
        yield from (image for image in images if has_digest(image.id, digest))

    def _namesake_path(self, image: Image) -> str:
        last = ""
        for last in namesake_paths(path_of(image.name), image.id):
            # An image that is really called like this is at this path, and this one behind it.
            if not self._is_taken(last):
                break
        return last

    def _is_taken(self, path: str) -> bool:
        found = self._folders.at(self._context, name_of(path))
        return found.image is not None or found.folder is not None or self._overlay.has_below(path)

    # ---- listing

    def _folder_pages(self, path: str, page_size: int) -> Iterator[Sequence[Folder]]:
        after = None
        while True:
            folders = self._folders.folders_in(self._context, path, after=after, limit=page_size)
            yield folders
            if len(folders) < page_size:
                return
            after = folders[-1].path

    def _image_pages(self, path: str, page_size: int) -> Iterator[tuple[Sequence[Image], bool]]:
        """Give the images of a folder in pages, and of each whether it is the last one."""
        marker = None
        while True:
            page = self._folders.images_in(self._context, path, after=marker, limit=page_size)
            yield page.images, page.marker is None
            if page.marker is None:
                return
            marker = page.marker

    def _entries(
        self, path: str, images: Sequence[Image], folders: set[str], *, is_first: bool, is_last: bool
    ) -> Iterator[Entry]:
        """Give the entries of a page of images; namesakes are side by side, perhaps across the ends of the page."""
        names: list[str | None] = [None, *(image.name for image in images), None]
        unsure = [
            image.id
            for number, image in enumerate(images)
            if image.name in {names[number], names[number + 2]}
            or (number == 0 and not is_first)
            or (number == len(images) - 1 and not is_last)
        ]
        first = self._folders.first_of_their_names(self._context, unsure) if unsure else ()
        others = set(unsure).difference(first)
        for image in images:
            name = split(path_of(image.name))[1]
            is_plain = image.id not in others and name not in folders
            yield self.image_entry(join(path, name) if is_plain else self._namesake_path(image), image)


def check_not_reserved(path: str) -> None:
    """Raise Forbidden for what lies in the mount's own folder."""
    if is_reserved(path):
        raise Forbidden(f"{RESERVED!r} is the mount's own; nothing can be changed in it.")
