# SPDX-License-Identifier: Apache-2.0
"""The mount's own folder, ``.glance``: other ways to the same images, and what is to be told about the mount.

::

    .glance/by-id/ID          a link to the one place where the image is
    .glance/by-type/TYPE/...  links by path, in which each "/" is written "%2F"
    .glance/json/ID.json      all that is known of an image; without the suffix where the name would be too long
    .glance/pending/NAME      files whose writers were killed
    .glance/errors            what went wrong, latest last
    .glance/...               further texts of the mount, such as stats

Answers for what is in there. Nothing in it can be changed, except that files in ``pending`` can be removed and renamed.

Threading: every method may be called from many threads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import ImageNotFound, InvalidPath, NotAFolder, PathNotFound
from glancefs.model import Image, ImageType
from glancefs.namesakes import (
    document_name,
    has_digest,
    id_of_document,
    may_be_cut,
    namesake_paths,
    said_digest,
    said_id,
)
from glancefs.paths import MAX_COMPONENT, RESERVED, join, name_of, path_of
from glancefs.registries.base import ImageQuery, SortDirection, SortKey
from glancefs.registries.folders import Folder
from glancefs.tree.attributes import COMPUTED, SETTABLE, text_of
from glancefs.tree.entries import LINK_MODE, READ_ONLY_MODE, Entry, EntryKind, folder_entry, staged_entry
from glancefs.tree.overlay import Overlay
from glancefs.tree.ports import TreeFolders, TreeImages

PENDING: Final = f"{RESERVED}/pending"

_BY_ID: Final = f"{RESERVED}/by-id"
_BY_TYPE: Final = f"{RESERVED}/by-type"
_JSON: Final = f"{RESERVED}/json"
_FOLDERS: Final = ("by-id", "by-type", "json", "pending")
_READS_AS_SLASH = re.compile(r"%(?=(?:25)*2F)")
_ESCAPED_SLASH = re.compile(r"%(?:25(?=(?:25)*2F)|2F)")


class Special:
    """What is in ``.glance``, for one caller."""

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        overlay: Overlay,
        context: RequestContext,
        documents: Mapping[str, Callable[[], bytes]],
        path_of_image: Callable[[Image], str],
        public_url: str,
        since: int,
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._overlay: Final = overlay
        self._context: Final = context
        self._documents: Final = documents
        self._path_of_image: Final = path_of_image
        self._public_url: Final = public_url
        self._since: Final = since

    def lookup(self, path: str) -> Entry:
        """Give what is at a path in here. Raises PathNotFound."""
        entry: Entry | None = None
        match path.split("/")[1:]:
            case []:
                entry = self._folder(path)
            case [name] if name in _FOLDERS:
                entry = self._folder(path)
            case [name] if name in self._documents:
                entry = self._document(path, len(self._documents[name]()))
            case ["by-type", kind] if kind in tuple(ImageType):
                entry = self._folder(path)
            case ["by-id", image_id] if self._find(image_id) is not None:
                entry = self._link(path)
            case ["by-type", kind, name] if kind in tuple(ImageType) and self._typed(kind, name) is not None:
                entry = self._link(path)
            case ["json", name] if (image := self._find(id_of_document(name))) is not None:
                entry = self._document(path, len(self._json(image)))
            case ["pending", name] if (staged := self._overlay.aborted(name)) is not None:
                entry = staged_entry(path, staged)
        if entry is None:
            raise PathNotFound.at(path)
        return entry

    def list(self, path: str, *, page_size: int) -> Iterator[Sequence[Entry]]:
        """Give what a folder in here holds, in pages. Raises PathNotFound, NotAFolder."""
        match path.split("/")[1:]:
            case []:
                names = [*_FOLDERS, *self._documents]
                return iter([[self.lookup(join(path, name)) for name in names]])
            case ["by-type"]:
                return iter([[self._folder(join(path, kind)) for kind in ImageType]])
            case ["by-id"]:
                images = self._images.find_all(self._context, _query(SortKey.ID), page_size=page_size)
                return _pages((self._link(join(path, image.id)) for image in images), page_size)
            case ["json"]:
                images = self._images.find_all(self._context, _query(SortKey.ID), page_size=page_size)
                return _pages((self._json_entry(path, image) for image in images), page_size)
            case ["by-type", kind] if kind in tuple(ImageType):
                return self._typed_links(path, ImageType(kind), page_size)
            case ["pending"]:
                return iter([[staged_entry(join(path, name), staged) for name, staged in self._overlay.all_aborted()]])
        self.lookup(path)
        raise NotAFolder(f"{path!r} is no folder.")

    def read_link(self, path: str) -> str:
        """Give where a link leads, from its own folder. Raises PathNotFound."""
        match path.split("/")[1:]:
            case ["by-id", image_id] if (image := self._find(image_id)) is not None:
                return f"../../{self._path_of_image(image)}"
            case ["by-type", kind, name] if (image := self._typed(kind, name)) is not None:
                return f"../../../{self._path_of_image(image)}"
        raise PathNotFound.at(path)

    def read_document(self, path: str) -> bytes:
        """Give a text. Raises PathNotFound."""
        match path.split("/")[1:]:
            case [name] if name in self._documents:
                return self._documents[name]()
            case ["json", name] if (image := self._find(id_of_document(name))) is not None:
                return self._json(image)
        raise PathNotFound.at(path)

    # ---- images

    def _find(self, image_id: str | None) -> Image | None:
        if image_id is None:
            return None
        try:
            return self._images.get(self._context, image_id)
        except ImageNotFound:
            return None

    def _typed(self, kind: str, link: str) -> Image | None:
        """Give the image to which a link in a folder of ``by-type`` leads."""
        image = self._folders.first_named(self._context, _name_of(_path_of_link(link)))
        if image is not None and image.type == kind and link == _link_name(image, is_first=True):
            return image
        image = self._find(said_id(link))
        if image is None and (said := said_digest(link)) is not None:
            image = self._of_digest(kind, *said)
        if image is None or image.type != kind or link != _link_name(image, is_first=False):
            return None
        return image

    def _of_digest(self, kind: str, name: str, digest: str) -> Image | None:
        """Give the image for whose identifier a digest in a link's name stands."""
        query = _query(SortKey.NAME, ImageType(kind))
        if not may_be_cut(name):
            query = replace(query, name=_name_of(_path_of_link(name)))
        images = self._images.find_all(self._context, query)
        return next((image for image in images if has_digest(image.id, digest)), None)

    def _typed_links(self, path: str, kind: ImageType, page_size: int) -> Iterator[Sequence[Entry]]:
        images = self._images.find_all(self._context, _query(SortKey.NAME, kind), page_size=page_size)
        while page := list(islice(images, page_size)):
            first = self._folders.first_of_their_names(self._context, [image.id for image in page])
            yield [self._link(join(path, _link_name(image, is_first=image.id in first))) for image in page]

    # ---- entries

    def _folder(self, path: str) -> Entry:
        return folder_entry(Folder(path=path), since=self._since, is_changeable=False)

    def _link(self, path: str) -> Entry:
        return Entry(
            path=path,
            kind=EntryKind.LINK,
            key=f"link:{path}",
            mtime_ns=self._since,
            ctime_ns=self._since,
            mode=LINK_MODE,
            is_changeable=False,
        )

    def _document(self, path: str, size: int) -> Entry:
        return Entry(
            path=path,
            kind=EntryKind.DOCUMENT,
            key=f"document:{path}",
            size=size,
            mtime_ns=self._since,
            ctime_ns=self._since,
            mode=READ_ONLY_MODE,
            is_changeable=False,
        )

    def _json_entry(self, path: str, image: Image) -> Entry:
        return self._document(join(path, document_name(image.id)), len(self._json(image)))

    def _json(self, image: Image) -> bytes:
        fields = ("name", *COMPUTED, *SETTABLE)
        said = {field: text_of(image, field, public_url=self._public_url) for field in fields}
        plain = {
            field: value if isinstance(value := getattr(image, field, None), int) else said[field] for field in fields
        }
        return json.dumps(plain | {"properties": dict(image.properties)}, indent=2).encode() + b"\n"


def _query(key: SortKey, kind: ImageType | None = None) -> ImageQuery:
    return ImageQuery(is_public=None, type=kind, sort_key=key, sort_direction=SortDirection.ASCENDING)


def _pages(entries: Iterable[Entry], page_size: int) -> Iterator[Sequence[Entry]]:
    rest = iter(entries)
    while page := list(islice(rest, page_size)):
        yield page


def _link_name(image: Image, *, is_first: bool) -> str:
    """Give the name of an image's link in a folder of ``by-type``: its path, as one component."""
    flat = _READS_AS_SLASH.sub("%25", path_of(image.name)).replace("/", "%2F")
    if is_first and len(flat.encode()) <= MAX_COMPONENT:
        return flat
    return next(namesake_paths(flat, image.id))


def _path_of_link(link: str) -> str:
    return _ESCAPED_SLASH.sub(lambda match: "/" if match[0] == "%2F" else "%", link)


def _name_of(path: str) -> str:
    try:
        return name_of(path)
    except InvalidPath:
        # A link that no image can have; some name that none has either serves as well.
        return path
