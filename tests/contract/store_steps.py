# SPDX-License-Identifier: Apache-2.0
"""What the tests of stores do again and again: data made up, put and read.

Threading: none of its own.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Collection

from glancefs.model import Location
from glancefs.stores.base import CopyingStore, Store, Stored


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def checksum_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(store: Store, data: bytes) -> Stored:
    with store.claim() as key:
        return store.add(key, io.BytesIO(data), size=len(data))


def read(store: Store, stored: Stored, start: int = 0, stop: int | None = None) -> bytes:
    with store.open(stored.location, start, stop) as stream:
        return stream.read()


def put_copy(store: CopyingStore, stored: Stored) -> Stored:
    with store.claim() as key:
        return store.copy(key, stored.location, checksum=stored.checksum)


def all_known(locations: Collection[Location]) -> Collection[Location]:
    return locations


def none_known(locations: Collection[Location]) -> Collection[Location]:
    return ()
