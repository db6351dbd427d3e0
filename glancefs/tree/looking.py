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
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, ImageNotFound, InvalidPath, IsAFolder, NotAFolder, PathNotFound
from glancefs.model import Image
from glancefs.namesakes import has_digest, may_be_cut, namesake_paths, said_digest, said_id
from glancefs.paths import RESERVED, is_reserved, join, name_of, path_of, split
from glancefs.registries.base import ImageQuery
from glancefs.registries.folders import Folder, Outline, outline_of
from glancefs.rules import may_change
from glancefs.tree.entries import (
    Entry,
    EntryKind,
    Listed,
    Outlined,
    folder_entry,
    image_entry,
    listed_entries,
    listed_images,
    staged_entry,
)
from glancefs.tree.overlay import Overlay
from glancefs.tree.ports import ImagesOnDisk, OutlinedFolders, TreeFolders, TreeImages

_PAGE: Final = 1000


class _Named(Protocol):
    """An image, as far as its path goes."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Taken:
    """The names in a folder that its images don't get."""

    by_folders: set[str] = field(default_factory=set)
    """What is called so is beside."""
    by_files: set[str] = field(default_factory=set)
    """What is called so is hidden by a staged file."""


class _Ends(NamedTuple):
    """Which ends of a folder a page of its images has."""

    is_first: bool
    is_last: bool


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

    def rehearse(self) -> None:
        """Ask once what listings ask: to put it into the database's words takes longer than the answers do.

        A server has done that for others before.
        """
        if not isinstance(self._images, ImagesOnDisk):
            return
        self._folders.folders_in(self._context, "", limit=1)
        if isinstance(self._folders, OutlinedFolders):
            page = self._folders.outlines_in(self._context, "", limit=1)
            if page.marker is not None:
                self._folders.outlines_in(self._context, "", after=page.marker, limit=1)

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

    def path_of_image(self, image: _Named) -> str:
        """Give the one path at which an image is."""
        path = path_of(image.name)
        if image.id in self._folders.first_of_their_names(self._context, [image.id]) and self.folder(path) is None:
            return path
        return self._namesake_path(image)

    def list(self, path: str, *, page_size: int) -> Iterator[Sequence[Entry]]:
        """Give what a folder holds, in pages: folders, then staged files, then images. Raises as `need_folder` does."""
        taken = _Taken()
        yield from self._list_others(path, taken, page_size)
        for images, ends in self._image_pages(path, page_size):
            leaves = zip(self._leaves(images, taken, ends), images, strict=True)
            yield [self.image_entry(join(path, leaf), image) for leaf, image in leaves if leaf is not None]

    def list_briefly(self, path: str, *, page_size: int) -> Iterator[Sequence[Listed]]:
        """Give the same, as much of it as the attributes of files take."""
        taken = _Taken()
        for entries in self._list_others(path, taken, page_size):
            yield listed_entries(entries)
        on_disk = self._images if isinstance(self._images, ImagesOnDisk) else None
        for leaves, images in self._outlines(path, taken, page_size):
            places = [image.location or "" for image in images]
            sizes: Sequence[int | None] = [None] * len(images) if on_disk is None else on_disk.allocated_at(places)
            yield listed_images(path, leaves, images, sizes)

    def list_outlined(self, path: str, *, page_size: int) -> Iterator[Outlined]:
        """Give the same, images in outline."""
        taken = _Taken()
        for entries in self._list_others(path, taken, page_size):
            yield Outlined(entries=entries)
        for leaves, images in self._outlines(path, taken, page_size):
            together = zip(leaves, images, strict=True)
            yield Outlined(images=[(leaf, image) for leaf, image in together if leaf is not None])

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

    def _namesake_path(self, image: _Named) -> str:
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

    def _list_others(self, path: str, taken: _Taken, page_size: int) -> Iterator[Sequence[Entry]]:
        """Give what is no image, and take down its names."""
        self.need_folder(path)
        for folders in self._folder_pages(path, page_size):
            taken.by_folders.update(split(folder.path)[1] for folder in folders)
            yield [self.folder_entry(folder) for folder in folders]
        staged_only = sorted(self._overlay.folders_in(path) - taken.by_folders - {RESERVED})
        taken.by_folders.update(staged_only)
        staged = self._overlay.in_folder(path)
        taken.by_files.update(name for name, _ in staged)
        yield [
            *(self.folder_entry(Folder(path=join(path, name))) for name in staged_only),
            *(staged_entry(join(path, name), file) for name, file in staged),
        ]

    def _folder_pages(self, path: str, page_size: int) -> Iterator[Sequence[Folder]]:
        after = None
        while True:
            folders = self._folders.folders_in(self._context, path, after=after, limit=page_size)
            yield folders
            if len(folders) < page_size:
                return
            after = folders[-1].path

    def _image_pages(self, path: str, page_size: int) -> Iterator[tuple[Sequence[Image], _Ends]]:
        marker = None
        while True:
            page = self._folders.images_in(self._context, path, after=marker, limit=page_size)
            yield page.images, _Ends(is_first=marker is None, is_last=page.marker is None)
            if page.marker is None:
                return
            marker = page.marker

    def _outline_pages(self, path: str, page_size: int) -> Iterator[tuple[Sequence[Outline], _Ends]]:
        if not isinstance(self._folders, OutlinedFolders):
            for images, ends in self._image_pages(path, page_size):
                yield [outline_of(image) for image in images], ends
            return
        marker = None
        while True:
            page = self._folders.outlines_in(self._context, path, after=marker, limit=page_size)
            yield page.images, _Ends(is_first=marker is None, is_last=page.marker is None)
            if page.marker is None:
                return
            marker = page.marker

    def _outlines(
        self, path: str, taken: _Taken, page_size: int
    ) -> Iterator[tuple[Sequence[str | None], Sequence[Outline]]]:
        for images, ends in self._outline_pages(path, page_size):
            yield self._leaves(images, taken, ends), images

    def _leaves(self, images: Sequence[_Named], taken: _Taken, ends: _Ends) -> Sequence[str | None]:
        """Give the file name of each image of a page, None where a staged file hides it.

        Namesakes are side by side, perhaps across the ends of the page.
        """
        if not images:
            return ()
        names = [image.name for image in images]
        unsure = set(() if ends.is_first else (0,)) | set(() if ends.is_last else (len(names) - 1,))
        for number, (name, following) in enumerate(pairwise(names)):
            if name == following:
                unsure |= {number, number + 1}
        ids = [images[number].id for number in unsure]
        others = set(ids).difference(self._folders.first_of_their_names(self._context, ids)) if ids else set()
        leaves: list[str | None] = []
        for image in images:
            leaf = path_of(image.name).rpartition("/")[2]
            if leaf in taken.by_folders or (others and image.id in others):
                leaf = split(self._namesake_path(image))[1]
            leaves.append(None if leaf in taken.by_files else leaf)
        return leaves


def check_not_reserved(path: str) -> None:
    """Raise Forbidden for what lies in the mount's own folder."""
    if is_reserved(path):
        raise Forbidden(f"{RESERVED!r} is the mount's own; nothing can be changed in it.")
