# SPDX-License-Identifier: Apache-2.0
"""Properties of what is in the share, as XML: those of WebDAV, those of images, and what clients keep (dead ones).

Answers for the texts of ``DAV:`` properties and for how attributes of images are named in XML: ``urn:glancefs:image``
holds the fields, ``urn:glancefs:property`` the image's properties. Which attributes there are and what they say,
`glancefs.tree.attributes` knows.

Threading: a `Properties` belongs to one request.
"""

from __future__ import annotations

import re
import time
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final
from wsgiref.handlers import format_date_time

from gateway.bodies import DATA_TYPE
from gateway.dav.locking import lock_discovery
from gateway.dav.urls import Share
from gateway.dav.xml import empty_element, escaped, split_name
from glancefs.errors import AttributeNotFound, AttributesUnsupported, GlancefsError, InvalidImage
from glancefs.headers import header_text
from glancefs.model import Image
from glancefs.registries.locks import Lock
from glancefs.stores.base import Space
from glancefs.tree import Entry, EntryKind
from glancefs.tree.attributes import OPTIONAL, PREFIX, PROPERTY
from glancefs.tree.entries import MTIME
from glancefs.tree.share import SharedTree

IMAGE_NS: Final = "urn:glancefs:image"
PROPERTY_NS: Final = "urn:glancefs:property"
NAMESPACES: Final = f'xmlns:D="DAV:" xmlns:i="{IMAGE_NS}" xmlns:p="{PROPERTY_NS}"'
"""What the root of every document that holds properties declares."""

LAST_MODIFIED: Final = "{DAV:}getlastmodified"
FOLDER_TYPE: Final = "httpd/unix-directory"

_ENTRY = "<D:lockentry><D:lockscope><D:{}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
LOCKS: Final = _ENTRY.format("exclusive") + _ENTRY.format("shared")
"""What ``supportedlock`` says of everything."""
_FOUND: Final = "<D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
_MISSING: Final = "<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
_QUOTA: Final = ("quota-available-bytes", "quota-used-bytes")
_BILLION: Final = 1_000_000_000
_DAY: Final = 86_400
# A key that no XML name can begin like is written as .NET's XmlConvert.EncodeName does.
_NO_NAME = re.compile(r"[0-9]|_(?=x[0-9a-f]{4}_)")
_ENCODED = re.compile(r"_x(003[0-9]|005f)_")

Writer = Callable[[Entry, Sequence[Lock], Mapping[str, str]], str | None]
"""Writes a property of an entry with these locks on it and these dead properties."""
NO_DEAD: Final[Mapping[str, str]] = {}


def etag_of(entry: Entry) -> str | None:
    """Give the strong entity tag of what is there; None for what has no data of its own.

    An image's is its checksum in base 64, as in Subresource Integrity: clients keep tags, and combine several of them,
    in buffers that are too short for two of 64 hex digits.
    """
    if entry.image is not None:
        if entry.kind is EntryKind.IMAGE and entry.image.checksum is not None:
            return compact_etag(entry.image.checksum)
        # The same while data are on their way in, so that who brings them under a condition is not refused at the end.
        return queued_etag(entry.image.id)
    if entry.staged is not None:
        # Each upload to a path makes a file of its own.
        return f'"{entry.key}"'
    return None


def queued_etag(image_id: str) -> str:
    """Give the entity tag of an image whose data are still to come."""
    return f'"queued:{image_id}"'


@lru_cache(maxsize=1024)
def compact_etag(checksum: str) -> str:
    """Give the entity tag of an image that has its data."""
    kind, _, digits = checksum.partition(":")
    return f'"{kind}-{b2a_base64(bytes.fromhex(digits), newline=False).decode()}"'


def propstats(found: str, missing: str) -> str:
    """Write which properties there are, and which not (RFC 4918, section 14.22)."""
    stats = f"<D:propstat><D:prop>{found}</D:prop>{_FOUND}" if found or not missing else ""
    return f"{stats}<D:propstat><D:prop>{missing}</D:prop>{_MISSING}" if missing else stats


def content_type_of(entry: Entry) -> str:
    """Give the media type of what is there."""
    if entry.kind is EntryKind.FOLDER:
        return FOLDER_TYPE
    if entry.kind is EntryKind.DOCUMENT:
        return "application/json" if entry.path.endswith(".json") else "text/plain; charset=utf-8"
    return DATA_TYPE


def http_date(seconds: int) -> str:
    """Write a time, in seconds since the epoch, as HTTP does (RFC 9110, section 5.6.7)."""
    day, rest = divmod(seconds, _DAY)
    return f"{_days(day)[0]}{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02} GMT"


def iso_date(seconds: int) -> str:
    """Write a time, in seconds since the epoch, as ``creationdate`` has it (RFC 3339)."""
    day, rest = divmod(seconds, _DAY)
    return f"{_days(day)[1]}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}Z"


@lru_cache(maxsize=1024)
def _days(day: int) -> tuple[str, str]:
    """Give a day in both ways of writing: times are nearly as many as images, days are few."""
    return format_date_time(day * _DAY).removesuffix("00:00:00 GMT"), time.strftime("%Y-%m-%d", time.gmtime(day * _DAY))


def attribute_of(name: str) -> str | None:
    """Give the attribute, without its prefix, that a property in one of our namespaces is; None for all others."""
    namespace, local = split_name(name)
    if namespace == IMAGE_NS:
        return local
    if namespace == PROPERTY_NS:
        encoded = _ENCODED.match(local)
        return PROPERTY + (local if encoded is None else chr(int(encoded[1], 16)) + local[encoded.end() :])
    return None


def _element(attribute: str) -> str:
    """Give the prefixed name of the element for an attribute."""
    if not attribute.startswith(PROPERTY):
        return f"i:{attribute}"
    key = attribute.removeprefix(PROPERTY)
    if _NO_NAME.match(key):
        key = f"_x{ord(key[0]):04x}_{key[1:]}"
    return f"p:{key}"


def _written(attribute: str, text: str) -> str:
    element = _element(attribute)
    return f"<{element}>{escaped(text)}</{element}>"


def image_fields(image: Image, *, base_url: str) -> str:
    """Write all attributes of an image, in one piece: folders are long. What is seldom there comes last.

    ``base_url`` is escaped already.
    """
    seldom = [(field, value) for field in OPTIONAL if (value := getattr(image, field)) is not None]
    created = header_text(image.created_at)
    updated = created if image.updated_at == image.created_at else header_text(image.updated_at)
    checksum = "" if image.checksum is None else f"<i:checksum>{image.checksum}</i:checksum>"
    owner = "" if image.owner is None else f"<i:owner>{escaped(image.owner)}</i:owner>"
    text = (
        f"<i:name>{escaped(image.name)}</i:name><i:id>{image.id}</i:id><i:status>{image.status.value}</i:status>"
        f"<i:size>{image.size}</i:size>{checksum}<i:store>{escaped(image.store)}</i:store>{owner}"
        f"<i:created_at>{created}</i:created_at><i:updated_at>{updated}</i:updated_at>"
        f"<i:uri>{base_url}/images/{image.id}</i:uri><i:type>{image.type.value}</i:type>"
        f"<i:is_public>{image.is_public}</i:is_public><i:protected>{image.protected}</i:protected>"
    )
    if seldom:
        text += "".join(_written(field, header_text(value)) for field, value in seldom)
    if image.properties:
        text += "".join(_written(PROPERTY + key, said) for key, said in image.properties.items() if key != MTIME)
    return text


class Properties:
    """Writes the properties of entries, for one request."""

    def __init__(self, *, share: Share, tree: SharedTree, base_url: str, space: Callable[[], Space | None]) -> None:
        self._share: Final = share
        self._tree: Final = tree
        self._base_url: Final = escaped(base_url.rstrip("/"))
        self._space: Final = space
        self._room: tuple[Space | None] | None = None

    # ---- everything

    def all(self, entry: Entry, locks: Sequence[Lock], dead: Mapping[str, str]) -> str:
        """Write all properties but those that are costly and so have to be asked for (RFC 4331, section 2)."""
        seconds = entry.mtime_ns // _BILLION
        etag = etag_of(entry)
        if entry.kind is EntryKind.FOLDER:
            what = "<D:resourcetype><D:collection/></D:resourcetype>"
        else:
            tagged = "" if etag is None else f"<D:getetag>{etag}</D:getetag>"
            what = f"<D:resourcetype/><D:getcontentlength>{entry.size}</D:getcontentlength>{tagged}"
        return (
            f"{what}<D:getlastmodified>{http_date(seconds)}</D:getlastmodified>"
            f"<D:creationdate>{iso_date(_created(entry))}</D:creationdate>"
            f"<D:displayname>{escaped(entry.name)}</D:displayname>"
            f"<D:getcontenttype>{content_type_of(entry)}</D:getcontenttype>"
            f"<D:supportedlock>{LOCKS}</D:supportedlock>"
            f"<D:lockdiscovery>{self._discovery(locks)}</D:lockdiscovery>"
            f"{self._attributes(entry)}{''.join(dead.values()) if dead else ''}"
        )

    def names(self, entry: Entry, dead: Mapping[str, str]) -> str:
        """Write the names of all properties."""
        names = ["resourcetype", "getlastmodified", "creationdate", "displayname", "getcontenttype", "supportedlock"]
        names.append("lockdiscovery")
        if entry.kind is EntryKind.FOLDER:
            names += _QUOTA
        else:
            names += ["getcontentlength"] if etag_of(entry) is None else ["getcontentlength", "getetag"]
        ours = (f"<{_element(name.removeprefix(PREFIX))}/>" for name in self._tree.list_xattrs(entry))
        return "".join([*(f"<D:{name}/>" for name in names), *ours, *map(empty_element, dead)])

    def _attributes(self, entry: Entry) -> str:
        if entry.image is not None:
            return image_fields(entry.image, base_url=self._base_url)
        return "".join(_written(attribute, text) for attribute, text in self._tree.attributes(entry))

    # ---- one of them

    def writer(self, name: str) -> Writer:
        """Give what writes one property of any entry, or gives None where the entry does not have it.

        A listing asks for the same of each entry, so whatever follows from the name alone is done once.
        """
        namespace, local = split_name(name)
        if namespace == "DAV:":
            return self._dav_writer(local)
        attribute = attribute_of(name)
        if attribute is None:
            return lambda _entry, _locks, dead: dead.get(name)
        element, field, tree = _element(attribute), PREFIX + attribute, self._tree

        def write(entry: Entry, _locks: Sequence[Lock], _dead: Mapping[str, str]) -> str | None:
            try:
                text = tree.get_xattr(entry, field).decode()
            except (AttributeNotFound, AttributesUnsupported, InvalidImage):
                return None
            return f"<{element}>{escaped(text)}</{element}>"

        return write

    def _dav_writer(self, local: str) -> Writer:
        if local == "lockdiscovery":
            return lambda _entry, locks, _dead: f"<D:lockdiscovery>{self._discovery(locks)}</D:lockdiscovery>"
        value_of = self._quota_of(local) if local in _QUOTA else _DAV.get(local)
        if value_of is None:
            return lambda _entry, _locks, _dead: None
        begin, end = f"<D:{local}>", f"</D:{local}>"

        def write(entry: Entry, _locks: Sequence[Lock], _dead: Mapping[str, str]) -> str | None:
            text = value_of(entry)
            return None if text is None else f"{begin}{text}{end}"

        return write

    def _quota_of(self, local: str) -> Callable[[Entry], str | None]:
        return lambda entry: self._quota(local) if entry.kind is EntryKind.FOLDER else None

    def _discovery(self, locks: Sequence[Lock]) -> str:
        return lock_discovery(locks, share=self._share) if locks else ""

    def _quota(self, local: str) -> str | None:
        if self._room is None:
            try:
                self._room = (self._space(),)
            except GlancefsError:
                self._room = (None,)
        space = self._room[0]
        if space is None:
            return None
        return str(space.free if local == _QUOTA[0] else space.total - space.free)


def _created(entry: Entry) -> int:
    if entry.image is not None:
        return int(entry.image.created_at.timestamp())
    return entry.ctime_ns // _BILLION


_DAV: Final[Mapping[str, Callable[[Entry], str | None]]] = {
    "resourcetype": lambda entry: "<D:collection/>" if entry.kind is EntryKind.FOLDER else "",
    "getcontentlength": lambda entry: None if entry.kind is EntryKind.FOLDER else str(entry.size),
    "getlastmodified": lambda entry: http_date(entry.mtime_ns // _BILLION),
    "creationdate": lambda entry: iso_date(_created(entry)),
    "displayname": lambda entry: escaped(entry.name),
    "getcontenttype": content_type_of,
    "getetag": etag_of,
    "supportedlock": lambda _: LOCKS,
}
"""What writes the properties of WebDAV that follow from the entry alone."""
