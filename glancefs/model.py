# SPDX-License-Identifier: Apache-2.0
"""Images as values: what they are made of, what a caller may say of them, and which states follow which.

Answers for the validity of everything a caller says about an image, once, at construction, for every door. Does no I/O
and knows neither who asks nor where anything is kept.

Threading: all values are frozen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, Final

from glancefs.errors import InvalidImage

MAX_ID: Final = 255
MAX_NAME: Final = 1024
"""In characters: room for a path of folders, and still indexable by every database."""
MAX_PROPERTY_KEY: Final = 255
MAX_PROPERTY_VALUE: Final = 65_536
"""In characters: what one extended attribute of Linux can hold."""
MAX_NUMBER: Final = 2**63 - 1
"""The largest whole number that every database keeps."""

DISK_FORMATS: Final = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "ploop", "iso")
CONTAINER_FORMATS: Final = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")

RESERVED_IDS: Final = frozenset({"detail", "changes"})
"""What stands at an image's place in a URI and means something else there."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_NOT_IN_KEY = re.compile(r"[^a-z0-9_]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

NO_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType({})


def _no_properties() -> Mapping[str, str]:
    return NO_PROPERTIES


class ImageType(StrEnum):
    """What an image is for (seed: ``x-image-meta-type``)."""

    KERNEL = "kernel"
    MACHINE = "machine"
    RAW = "raw"
    RAMDISK = "ramdisk"


class ImageStatus(StrEnum):
    """Where an image is in its life."""

    QUEUED = "queued"
    """Known by its metadata, waiting for its data."""
    SAVING = "saving"
    """Its data are on their way in."""
    AVAILABLE = "available"
    """Complete; its data never change."""
    KILLED = "killed"
    """Its data never came and will not."""
    DELETED = "deleted"
    """Gone; the row stays, so that its identifier is never used again and others learn of it."""


TRANSITIONS: Final[Mapping[ImageStatus, frozenset[ImageStatus]]] = MappingProxyType(
    {
        ImageStatus.QUEUED: frozenset({ImageStatus.SAVING, ImageStatus.DELETED}),
        ImageStatus.SAVING: frozenset(
            {ImageStatus.AVAILABLE, ImageStatus.QUEUED, ImageStatus.KILLED, ImageStatus.DELETED}
        ),
        ImageStatus.AVAILABLE: frozenset({ImageStatus.DELETED}),
        ImageStatus.KILLED: frozenset({ImageStatus.DELETED}),
        ImageStatus.DELETED: frozenset(),
    }
)
"""Which statuses may follow which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an image's data are: a store, and a key of that store. Its text never holds credentials."""

    store: str
    key: str

    def __str__(self) -> str:
        return f"{self.store}:{self.key}"

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read what ``str`` gave."""
        store, _, key = text.partition(":")
        return cls(store=store, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as the registry knows it. Times are UTC, whole seconds; sizes are bytes."""

    id: str
    name: str
    type: ImageType
    status: ImageStatus
    size: int
    store: str
    owner: str | None
    is_public: bool
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    checksum: str | None = None
    """``sha256:`` and 64 hex digits; None until there are data."""
    location: Location | None = None
    properties: Mapping[str, str] = field(default_factory=_no_properties)
    disk_format: str | None = None
    container_format: str | None = None
    virtual_size: int | None = None
    min_disk: int | None = None
    """In GiB."""
    min_ram: int | None = None
    """In MiB."""
    protected: bool = False
    revision: int = 0
    """The number of the change that made it what it is, unique in its registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """What a caller may say of an image to be. Raises InvalidImage for what can't be so."""

    name: str
    type: ImageType
    id: str | None = None
    store: str | None = None
    size: int | None = None
    """The declared size of the data; they are refused when they are shorter or longer."""
    checksum: str | None = None
    """The declared checksum of the data; they are refused when it is another."""
    is_public: bool | None = None
    """None: as the configuration says, private unless it says otherwise."""
    properties: Mapping[str, str] = field(default_factory=_no_properties)
    disk_format: str | None = None
    container_format: str | None = None
    virtual_size: int | None = None
    min_disk: int | None = None
    min_ram: int | None = None
    protected: bool = False
    owner: str | None = None
    """For admins only, who may add images for others; None: the caller."""

    def __post_init__(self) -> None:
        if self.id is not None:
            _check_id(self.id)
        _check_fields(self)
        object.__setattr__(self, "properties", normal_properties(self.properties))


class Unset(Enum):
    """The value of a field of `ImageChanges` that is to stay as it is."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChanges:
    """What a caller may change of an image. Raises InvalidImage for what can't be so."""

    name: str | Unset = UNSET
    type: ImageType | Unset = UNSET
    is_public: bool | Unset = UNSET
    disk_format: str | Unset | None = UNSET
    container_format: str | Unset | None = UNSET
    virtual_size: int | Unset | None = UNSET
    min_disk: int | Unset | None = UNSET
    min_ram: int | Unset | None = UNSET
    protected: bool | Unset = UNSET
    owner: str | Unset | None = UNSET
    """For admins only."""
    properties: Mapping[str, str] = field(default_factory=_no_properties)
    """Set these; the others stay unless `purge_properties`."""
    removed_properties: frozenset[str] = frozenset()
    purge_properties: bool = False

    def __post_init__(self) -> None:
        _check_fields(self)
        object.__setattr__(self, "properties", normal_properties(self.properties))

    def said(self) -> dict[str, Any]:
        """Give the plain fields that are set, properties apart."""
        return {
            entry.name: value
            for entry in fields(self)
            if "propert" not in entry.name and (value := getattr(self, entry.name)) is not UNSET
        }

    def properties_after(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """Give the properties that an image with these has once the changes are made."""
        kept = NO_PROPERTIES if self.purge_properties else before
        after = {key: value for key, value in kept.items() if key not in self.removed_properties}
        return MappingProxyType(after | dict(self.properties))


def property_key(text: str) -> str:
    """Give the key under which a property is kept: lower-cased, dashes and punctuation as underscores (seed).

    Raises InvalidImage for a key that is empty, too long or not ASCII.
    """
    if not text or len(text) > MAX_PROPERTY_KEY or not text.isascii() or not text.isprintable():
        message = f"{text[:80]!r} can't be the key of a property: 1 to {MAX_PROPERTY_KEY} printable ASCII characters."
        raise InvalidImage(message, field="properties")
    return _NOT_IN_KEY.sub("_", text.lower())


def normal_properties(properties: Mapping[str, str]) -> Mapping[str, str]:
    """Bring the keys into their normal form. Raises InvalidImage also where two of them meet in one."""
    if not properties:
        return NO_PROPERTIES
    normal: dict[str, str] = {}
    for text, value in properties.items():
        key = property_key(text)
        if key in normal:
            message = f"Two properties meet in the key {key!r}; {text!r} is the second."
            raise InvalidImage(message, field="properties")
        _check_text(f"property-{key}", value, longest=MAX_PROPERTY_VALUE)
        normal[key] = value
    return MappingProxyType(normal)


def _check_id(text: str) -> None:
    if not _ID.fullmatch(text):
        message = (
            f"{text[: MAX_ID + 1]!r} can't be the id of an image: 1 to {MAX_ID} of A-Z a-z 0-9 . _ -, beginning with a "
            f"letter or digit."
        )
        raise InvalidImage(message, field="id")
    if text in RESERVED_IDS:
        message = f"{text!r} can't be the id of an image: its URI means something else."
        raise InvalidImage(message, field="id")


def _check_fields(said: NewImage | ImageChanges) -> None:
    if not isinstance(said.name, Unset):
        _check_text("name", said.name, longest=MAX_NAME)
    _check_word("disk_format", said.disk_format, DISK_FORMATS)
    _check_word("container_format", said.container_format, CONTAINER_FORMATS)
    for name in ("virtual_size", "min_disk", "min_ram"):
        _check_number(name, getattr(said, name))
    if isinstance(said.owner, str):
        _check_text("owner", said.owner, longest=MAX_ID)
    if isinstance(said, NewImage):
        _check_number("size", said.size)
        if said.checksum is not None and not _CHECKSUM.fullmatch(said.checksum):
            message = f"{said.checksum[:80]!r} is not a checksum: 'sha256:' and 64 lower-case hex digits."
            raise InvalidImage(message, field="checksum")


def _check_text(name: str, value: str, *, longest: int) -> None:
    if len(value) > longest:
        message = f"The {name} is {len(value)} characters long; {longest} is the most."
        raise InvalidImage(message, field=name)
    if _SURROGATE.search(value):
        message = f"The {name} is not text: it holds bytes that are no UTF-8."
        raise InvalidImage(message, field=name)


def _check_word(name: str, value: str | Unset | None, words: tuple[str, ...]) -> None:
    if isinstance(value, str) and value not in words:
        message = f"{value[:80]!r} is not a {name}; there are {', '.join(words)}."
        raise InvalidImage(message, field=name)


def _check_number(name: str, value: int | Unset | None) -> None:
    if isinstance(value, int) and not 0 <= value <= MAX_NUMBER:
        message = f"{value} can't be the {name}: a whole number from 0 to {MAX_NUMBER}."
        raise InvalidImage(message, field=name)


def image_type(text: str) -> ImageType:
    """Read a type. Raises InvalidImage that names the valid ones."""
    try:
        return ImageType(text)
    except ValueError:
        message = f"{text[:80]!r} is not a type; there are {', '.join(ImageType)}."
        raise InvalidImage(message, field="type") from None
