# SPDX-License-Identifier: Apache-2.0
"""Counting the bytes of an upload while they pass: no end of data is trusted.

Answers for refusing data that are shorter or longer than declared, or more than a node takes, as soon as that is
certain. Does not compute checksums: stores do, beside writing.

Threading: a source belongs to one upload.
"""

from __future__ import annotations

from glancefs.errors import ChecksumMismatch, SizeMismatch, UploadTooLarge
from glancefs.stores.base import Source


class MeasuredSource:
    """A source that raises where the data of the one below do not have the declared size."""

    def __init__(self, source: Source, *, size: int | None, most: int | None) -> None:
        self._source = source
        self._size = size
        self._most = most
        self._seen = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """Pass bytes on. Raises SizeMismatch at the first byte too many or at an end too early, UploadTooLarge."""
        count = self._source.readinto(buffer)
        self._seen += count
        check_size_allowed(self._seen, most=self._most)
        if self._size is not None and (self._seen > self._size or (count == 0 and self._seen < self._size)):
            seen = f"more than {self._size}" if self._seen > self._size else str(self._seen)
            message = f"The data are {seen} bytes long; {self._size} were declared."
            raise SizeMismatch(message)
        return count


def check_size_allowed(size: int, *, most: int | None) -> None:
    """Raise UploadTooLarge for more bytes than a node takes (None: any number)."""
    if most is not None and size > most:
        message = f"The data are more than the {most} bytes that this server takes."
        raise UploadTooLarge(message)


def declared_size(*sizes: int | None, most: int | None) -> int | None:
    """Give the one size that was declared, here or there; None if none was. Raises SizeMismatch, UploadTooLarge."""
    said = {size for size in sizes if size is not None}
    if len(said) > 1:
        message = f"The data can't be both {' and '.join(str(size) for size in sorted(said))} bytes long."
        raise SizeMismatch(message)
    size = said.pop() if said else None
    check_size_allowed(size or 0, most=most)
    return size


def check_checksum(found: str, declared: str | None) -> None:
    """Raise ChecksumMismatch where another one was declared (None: none was)."""
    if declared not in {None, found}:
        message = f"The data have the checksum {found}, not {declared}."
        raise ChecksumMismatch(message)
