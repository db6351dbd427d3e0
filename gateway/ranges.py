# SPDX-License-Identifier: Apache-2.0
"""Which bytes a request asks for: the ``Range`` header, and the framing of an answer with several ranges.

Answers for RFC 9110, sections 14.1 to 14.6. A header that is malformed, or that asks for more pieces or more bytes than
makes sense, is ignored, as the RFC allows: the answer is then the whole. Reads nothing.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MOST_RANGES: Final = 64
"""More are taken for an attack, and the whole is sent."""

_SPEC = re.compile(r"(\d{0,30})[ \t]*-[ \t]*(\d{0,30})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Give the value of ``Content-Range`` for a whole of ``size`` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def wanted_ranges(header: str | None, size: int) -> Sequence[ByteRange] | None:
    """Read a ``Range`` header for a whole of ``size`` bytes.

    None means the whole; an empty sequence means that nothing of what was asked for is there (416).
    """
    specs = _specs(header)
    if specs is None:
        return None
    ranges = [found for found in (_satisfied(first, last, size) for first, last in specs) if found is not None]
    if sum(len(found) for found in ranges) > size:
        return None
    return ranges


def _specs(header: str | None) -> list[tuple[str, str]] | None:
    """Give the pairs of positions as they were said; None for what is no list of byte ranges, or an absurd one."""
    if header is None:
        return None
    unit, equals, listed = header.partition("=")
    if not equals or unit.strip().lower() != "bytes" or listed.count(",") >= MOST_RANGES or not header.isascii():
        return None
    specs = []
    for text in listed.split(","):
        stripped = text.strip(" \t")
        if not stripped:
            continue
        spec = _SPEC.fullmatch(stripped)
        if spec is None or not (spec[1] or spec[2]) or (spec[1] and spec[2] and int(spec[2]) < int(spec[1])):
            return None
        specs.append((spec[1], spec[2]))
    return specs or None


def _satisfied(first: str, last: str, size: int) -> ByteRange | None:
    if not first:
        length = min(int(last), size)
        return ByteRange(size - length, size) if length else None
    start = int(first)
    if start >= size:
        return None
    return ByteRange(start, min(int(last) + 1, size) if last else size)


class Multipart:
    """The framing of several ranges in one body (RFC 9110, section 14.6)."""

    def __init__(self, ranges: Sequence[ByteRange], *, size: int, content_type: str) -> None:
        self._ranges = ranges
        self._boundary = secrets.token_hex(16)
        self._heads = [
            f"\r\n--{self._boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: {wanted.content_range(size)}\r\n\r\n".encode()
            for wanted in ranges
        ]
        self._end = f"\r\n--{self._boundary}--\r\n".encode()
        self.content_type = f"multipart/byteranges; boundary={self._boundary}"
        self.length = sum(map(len, ranges)) + sum(map(len, self._heads)) + len(self._end)
        """The length of the whole body in bytes."""

    def pieces(self) -> Iterator[bytes | ByteRange]:
        """Give the body: bytes as they are, and ranges to be filled in."""
        for head, wanted in zip(self._heads, self._ranges, strict=True):
            yield head
            yield wanted
        yield self._end
