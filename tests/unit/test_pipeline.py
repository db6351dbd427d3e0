# SPDX-License-Identifier: Apache-2.0
"""Reading, hashing and writing side by side: `glancefs.stores.pipeline`.

Threading: the code under test starts a thread per large upload; these tests see that it ends.
"""

from __future__ import annotations

import hashlib
import io
import threading

import pytest

from glancefs.stores.pipeline import BLOCK, BLOCKS, SMALL, copy


class Buffers:
    """A source that remembers how much memory it was given to fill."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.largest = 0
        self.threads = 0

    def readinto(self, buffer: memoryview, /) -> int:
        self.largest = max(self.largest, len(buffer))
        self.threads = max(self.threads, sum(thread.name == "hash" for thread in threading.enumerate()))
        size = min(len(buffer), self._left)
        self._left -= size
        return size


def ignore(part: memoryview) -> None:
    pass


@pytest.mark.parametrize("size", [0, 1, SMALL - 1])
def test_a_small_upload_is_written_at_once_and_starts_no_thread(size: int) -> None:
    source, parts = Buffers(size), list[int]()
    assert copy(source, lambda part: parts.append(len(part))).size == size
    assert parts == ([size] if size else [])
    assert source.threads == 0


def test_a_promise_of_little_takes_little_memory() -> None:
    source = Buffers(10)
    assert copy(source, ignore, size=10).size == 10
    assert source.largest == 11


def test_a_large_upload_is_written_in_order_and_in_large_pieces() -> None:
    data = bytes(range(256)) * 20_000
    written, parts = bytearray(), list[int]()

    def write(part: memoryview) -> None:
        written.extend(part)
        parts.append(len(part))

    copied = copy(io.BytesIO(data), write, size=len(data))
    assert bytes(written) == data
    assert copied.checksum == "sha256:" + hashlib.sha256(data).hexdigest()
    assert set(parts[:-1]) == {BLOCK}


def test_blocks_are_used_again() -> None:
    addresses: set[int] = set()

    def write(part: memoryview) -> None:
        owner = part.obj
        addresses.add(id(owner))

    copy(Buffers(20 * BLOCK), write, size=20 * BLOCK)
    assert 1 <= len(addresses) <= BLOCKS


@pytest.mark.parametrize("turn", [0, 3])
def test_an_error_of_the_writer_passes_through_and_ends_the_thread(turn: int) -> None:
    turns = iter(range(100))

    def write(part: memoryview) -> None:
        if next(turns) == turn:
            raise OSError(28, "full")

    source = Buffers(20 * BLOCK)
    with pytest.raises(OSError, match="full"):
        copy(source, write, size=20 * BLOCK)
    assert source.threads == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "hash"]
