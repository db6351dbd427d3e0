# SPDX-License-Identifier: Apache-2.0
"""PUT, and what clients say with it of the file (RFC 4918, section 9.7).

Answers for reading the headers of an upload. What becomes of it, `ImageTree.put` knows.

Threading: pure functions; a source belongs to one request.
"""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from wsgidav.dav_error import DAVError

from gateway.dav.reading import NoData
from gateway.wsgi import Request
from glancefs.errors import ChecksumMismatch, InvalidRequest
from glancefs.staging import Said
from glancefs.stores.base import Source
from glancefs.tree.entries import MTIME, mtime_text

_OC_CHECKSUM = re.compile(r"(?i)(sha1|md5|sha256):([0-9a-f]{32,64})")
_OC_MTIME = re.compile(r"-?[0-9]{1,10}(?:\.[0-9]{1,9})?")
_BILLION: Final = 1_000_000_000


def said_with(request: Request) -> Said:
    """Give what is said of the file: its time, as ownCloud's clients and rclone say it; nonsense is ignored."""
    text = (request.header("x-oc-mtime") or "").strip()
    if not _OC_MTIME.fullmatch(text):
        return Said()
    whole, _, rest = text.partition(".")
    mtime_ns = int(whole) * _BILLION + int(rest.ljust(9, "0") or 0)
    return Said(properties=MappingProxyType({MTIME: mtime_text(mtime_ns)}))


def size_of(request: Request) -> int | None:
    """Give the declared size of the data; None for chunks of which only the end tells.

    Finder sends chunks and says their sum beside. Raises DAVError (400) for a part of a file (RFC 9110, section 14.4).
    """
    if request.header("content-range") is not None:
        raise DAVError(HTTPStatus.BAD_REQUEST, "A file is sent whole: a body with Content-Range is not taken.")
    if not request.is_chunked:
        return request.content_length or 0
    expected = request.header("x-expected-entity-length")
    return int(expected[:18]) if expected and expected.isascii() and expected.isdigit() else None


def source_of(request: Request, size: int | None) -> tuple[Source, str | None]:
    """Give the data, and the checksum that they are declared to have, if it is one that images have.

    Another checksum is held against the data as they come. Raises InvalidRequest for what is no checksum.
    """
    source: Source = NoData() if size == 0 else request.source
    header = request.header("oc-checksum")
    if header is None:
        return source, None
    match = _OC_CHECKSUM.fullmatch(header.strip())
    if match is None:
        raise InvalidRequest("OC-Checksum holds no checksum: SHA1, MD5 or SHA256, a colon, and hex digits.")
    kind, digits = match[1].lower(), match[2].lower()
    if kind == "sha256":
        return source, f"sha256:{digits}"
    return VerifiedSource(source, kind=kind, digits=digits), None


class VerifiedSource:
    """A source that raises at its end unless its data have a declared checksum."""

    def __init__(self, source: Source, *, kind: str, digits: str) -> None:
        self._source: Final = source
        self._digits: Final = digits
        self._kind: Final = kind
        self._digest: Any = hashlib.new(kind, usedforsecurity=False)

    def readinto(self, buffer: memoryview, /) -> int:
        """Pass bytes on. Raises ChecksumMismatch."""
        count = self._source.readinto(buffer)
        if count:
            self._digest.update(buffer[:count])
        elif self._digest.hexdigest() != self._digits:
            raise ChecksumMismatch(f"The data do not have the {self._kind.upper()} {self._digits}.")
        return count
