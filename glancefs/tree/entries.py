# SPDX-License-Identifier: Apache-2.0
"""What is at a path of the tree, as a value with the attributes that a file has.

Answers for sizes, times and identities of entries. Does not know owners of files, umasks and the rest of a mount.

Threading: values are frozen; what they say of a staged file is as it was when they were made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple

from glancefs.model import MAX_NUMBER, Image, ImageStatus
from glancefs.paths import join
from glancefs.registries.folders import Folder, Outline
from glancefs.staging import StagedUpload

MTIME: Final = "mtime"
"""The property that keeps the time of modification: seconds since the epoch, decimal."""

FILE_MODE: Final = 0o644
FOLDER_MODE: Final = 0o755
LINK_MODE: Final = 0o777
READ_ONLY_MODE: Final = 0o444

_BILLION: Final = 1_000_000_000
_AVAILABLE: Final = str(ImageStatus.AVAILABLE)
_NO_PROPERTIES: Final = "{}"


class EntryKind(Enum):
    """What is at a path."""

    IMAGE = "image"
    """An available image; its data never change."""
    QUEUED = "queued"
    """An image without data (queued, saving, killed), shown at its declared size; reads as zeros."""
    STAGED = "staged"
    """A file that is not yet an image, seen on this mount only."""
    FOLDER = "folder"
    LINK = "link"
    """A symbolic link below ``.glance``; its target is asked for with `ImageTree.read_link`."""
    DOCUMENT = "document"
    """A generated, read-only text below ``.glance``; its text is asked for with `ImageTree.read_document`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is at a path."""

    path: str
    """From the root of the tree, without a leading slash; ``""`` is the root."""
    kind: EntryKind
    key: str
    """What it is, wherever it is: ``image:ID``, ``staged:KEY``, ``folder:PATH``, ``link:PATH``, ``document:PATH``."""
    size: int = 0
    """In bytes; 0 for links and folders, and for documents whose text was not asked for."""
    mtime_ns: int = 0
    ctime_ns: int = 0
    mode: int = FILE_MODE
    """Permission bits only, before the mount's umask."""
    image: Image | None = None
    """For IMAGE and QUEUED."""
    staged: StagedUpload | None = None
    """For STAGED."""
    is_changeable: bool = True
    """Whether the caller may remove and rename it."""

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]

    @property
    def ino(self) -> int:
        """A number for it that is the same on every mount and after every remount: 62 bits, never 0 or 1."""
        return inode_number(self.key)


class Outlined(NamedTuple):
    """One page of a listing: what is no image, or images by their names in the folder."""

    entries: Sequence[Entry] = ()
    images: Sequence[tuple[str, Outline]] = ()


class Listed(NamedTuple):
    """What a listing says of something: enough for the attributes of a file. See `Entry` for what the fields mean."""

    path: str
    name: str
    kind: EntryKind
    key: str
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    allocated: int
    """The bytes that it takes on a disk; its size, where nobody can tell."""
    owner: str | None
    is_public: bool
    entry: Entry | None
    """The whole of it; None for an image, of which a listing tells no more."""


def inode_number(key: str) -> int:
    """Give the inode number of what has this `Entry.key`."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 2 | 2


def image_key(image_id: str) -> str:
    """Give the key of an image's entry."""
    return f"image:{image_id}"


def image_entry(path: str, image: Image, *, is_changeable: bool) -> Entry:
    """Give the entry of an image."""
    return Entry(
        path=path,
        kind=EntryKind.IMAGE if image.status is ImageStatus.AVAILABLE else EntryKind.QUEUED,
        key=image_key(image.id),
        size=image.size,
        mtime_ns=mtime_of(image),
        ctime_ns=_nanoseconds(image.updated_at),
        image=image,
        is_changeable=is_changeable,
    )


def listed_images(
    folder: str, names: Sequence[str | None], images: Sequence[Outline], allocated: Sequence[int | None]
) -> Sequence[Listed]:
    """Give what a listing of a folder says of images that have these names in it (None: is not in it).

    ``allocated`` are the bytes that they take, where somebody can tell.
    """
    listed, prefix = [], join(folder, "")
    # This is done for every image of a folder, so there is no call in it that can be spared.
    make, number_of = Listed._make, inode_number
    image_kind, queued_kind = EntryKind.IMAGE, EntryKind.QUEUED
    for name, image, on_disk in zip(names, images, allocated, strict=True):
        if name is None:
            continue
        id, _, status, size, _, owner, is_public, created_at, updated_at, properties, _ = image
        kind, taken = queued_kind, 0
        if status == _AVAILABLE:
            kind, taken = image_kind, size if on_disk is None else on_disk
        said = None if properties == _NO_PROPERTIES else read_mtime(json.loads(properties).get(MTIME))
        mtime_ns = created_at * _BILLION if said is None else said
        path, key = prefix + name, f"image:{id}"
        ctime_ns, ino = updated_at * _BILLION, number_of(key)
        listed.append(make((path, name, kind, key, ino, size, mtime_ns, ctime_ns, taken, owner, bool(is_public), None)))
    return listed


def outlined_mtime(image: Outline) -> int:
    """Give the time of modification of an image, in nanoseconds since the epoch, as `mtime_of` does."""
    said = None if image.properties == _NO_PROPERTIES else read_mtime(json.loads(image.properties).get(MTIME))
    return image.created_at * _BILLION if said is None else said


def listed_entries(entries: Sequence[Entry]) -> Sequence[Listed]:
    """Give what a listing says of anything but images."""
    return [_listed(entry) for entry in entries]


def _listed(entry: Entry) -> Listed:
    image = entry.image
    return Listed(
        path=entry.path,
        name=entry.name,
        kind=entry.kind,
        key=entry.key,
        ino=entry.ino,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns,
        allocated=entry.size,
        owner=None if image is None else image.owner,
        is_public=image is not None and image.is_public,
        entry=entry,
    )


def staged_entry(path: str, staged: StagedUpload) -> Entry:
    """Give the entry of a staged file, as it is at this moment."""
    said = read_mtime(staged.said.properties.get(MTIME))
    return Entry(
        path=path,
        kind=EntryKind.STAGED,
        key=f"staged:{staged.key}",
        size=staged.size,
        mtime_ns=staged.mtime_ns if said is None else said,
        ctime_ns=staged.mtime_ns,
        staged=staged,
    )


def is_broken_off(staged: StagedUpload) -> bool:
    """Say whether a copy tool left a file as half done.

    ``rsync --partial`` gives what it could not finish its plain name, and a time in the first second of the epoch.
    """
    said = read_mtime(staged.said.properties.get(MTIME))
    return said is not None and 0 <= said < _BILLION


def folder_entry(folder: Folder, *, since: int, is_changeable: bool = True) -> Entry:
    """Give the entry of a folder; ``since`` is the time, in nanoseconds, of one that nobody made."""
    created = since if folder.created_at is None else _nanoseconds(folder.created_at)
    return Entry(
        path=folder.path,
        kind=EntryKind.FOLDER,
        key=f"folder:{folder.path}",
        mtime_ns=created if folder.mtime_ns is None else folder.mtime_ns,
        ctime_ns=created,
        mode=FOLDER_MODE,
        is_changeable=is_changeable,
    )


def mtime_of(image: Image) -> int:
    """Give an image's time of modification in nanoseconds: what its property says, else its creation."""
    said = read_mtime(image.properties.get(MTIME)) if image.properties else None
    return _nanoseconds(image.created_at) if said is None else said


def read_mtime(text: str | None) -> int | None:
    """Read the property ``mtime``; None for what is none."""
    if text is None:
        return None
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        return None
    if not seconds.is_finite() or abs(seconds) > MAX_NUMBER // _BILLION:
        return None
    return int(seconds * _BILLION)


def mtime_text(nanoseconds: int) -> str:
    """Write the property ``mtime``."""
    seconds, rest = divmod(nanoseconds, _BILLION)
    if not rest:
        return str(seconds)
    return format((Decimal(nanoseconds) / _BILLION).normalize(), "f")


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp()) * _BILLION
