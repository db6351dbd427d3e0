# SPDX-License-Identifier: Apache-2.0
"""Bringing data into a store: uploads, finished local files, and what another image has already.

Answers for holding what was kept against what was declared. Knows no registry; the key is the caller's, who claimed it.

Threading: thread-safe, as the stores are.
"""

from __future__ import annotations

from glancefs.errors import ChecksumMismatch, DataMissing
from glancefs.localfile import LocalFile
from glancefs.measure import MeasuredSource, check_checksum, declared_size
from glancefs.model import Image, Location
from glancefs.stores.base import AdoptingStore, Source, Store, Stored, copies_data


def keep(store: Store, key: str, source: Source, *, size: int | None, checksum: str | None, most: int | None) -> Stored:
    """Keep what a source gives, or adopt a local file, if it is as was declared and no larger than ``most``.

    Raises SizeMismatch, ChecksumMismatch, UploadTooLarge, StoreFull, and whatever ``source`` raises; then nothing is
    kept, and a local file is in its place again.
    """
    if isinstance(source, LocalFile) and source.can_be_adopted(store):
        return _adopt(store, key, source, size=size, checksum=checksum, most=most)
    if isinstance(source, LocalFile):
        # What was hashed while it was written is what is to arrive.
        checksum = checksum or source.checksum
    measured = MeasuredSource(source, size=size, most=most)
    stored = store.add(key, measured, size=size)
    _check_checksum(store, stored, checksum)
    return stored


def keep_copy(store: Store, key: str, image: Image, location: Location, source: Store) -> Stored:
    """Keep the data of an available image once more, by the store's own means if they are in the same one.

    Raises DataMissing where the data are gone or not those of the image, StoreFull, StoreUnavailable.
    """
    if store is source and copies_data(store) and image.checksum is not None:
        stored = store.copy(key, location, checksum=image.checksum)
    else:
        with source.open(location) as data:
            stored = store.add(key, data, size=image.size)  # type: ignore[arg-type]  # BinaryIO is typed without it
        _check_checksum(store, stored, image.checksum)
    if stored.size != image.size:
        store.delete(stored.location)
        message = f"The data of image {image.id!r} are not as large as they were."
        raise DataMissing(message)
    return stored


def _adopt(
    store: AdoptingStore, key: str, file: LocalFile, *, size: int | None, checksum: str | None, most: int | None
) -> Stored:
    declared_size(size, file.size, most=most)
    check_checksum(file.checksum, checksum)
    return store.adopt(key, store.staging_folder / key, checksum=file.checksum)


def _check_checksum(store: Store, stored: Stored, checksum: str | None) -> None:
    try:
        check_checksum(stored.checksum, checksum)
    except ChecksumMismatch:
        store.delete(stored.location)
        raise
