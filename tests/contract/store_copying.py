# SPDX-License-Identifier: Apache-2.0
"""What every store promises that copies data by means of its own, as tests; part of `StoreContract`.

Threading: one test races threads on purpose.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from glancefs.errors import DataMissing
from glancefs.model import Location
from glancefs.stores.base import Store, Stored, Swept, copies_data
from glancefs.stores.pipeline import BLOCK, SMALL
from tests.contract.store_steps import all_known, put, put_copy, read, some_bytes


class CopyingContract:
    """The promises of `glancefs.stores.base.CopyingStore`."""

    @pytest.mark.parametrize("size", [0, 1, BLOCK + SMALL])
    def test_a_copy_is_the_same_data_and_minds_nothing_that_becomes_of_the_first(self, store: Store, size: int) -> None:
        if not copies_data(store):
            return
        first = put(store, some_bytes(size))
        second = put_copy(store, first)
        third = put_copy(store, second)
        assert (second.size, second.checksum) == (first.size, first.checksum)
        assert len({stored.location for stored in (first, second, third)}) == 3
        store.delete(first.location)
        assert [read(store, stored) for stored in (second, third)] == [some_bytes(size)] * 2
        store.delete(third.location)
        assert read(store, second) == some_bytes(size)
        assert store.sweep(all_known) == Swept()

    def test_what_is_missing_can_not_be_copied_and_leaves_nothing(self, store: Store) -> None:
        if not copies_data(store):
            return
        first = put(store, b"data")
        store.delete(first.location)
        for location in (first.location, Location(store="elsewhere", key=first.location.key)):
            with store.claim() as key, pytest.raises(DataMissing):
                store.copy(key, location, checksum=first.checksum)
            with pytest.raises(DataMissing):
                store.size(Location(store=store.scheme, key=key))

    def test_a_key_takes_one_copy(self, store: Store) -> None:
        if not copies_data(store):
            return
        first = put(store, b"data")
        with store.claim() as key:
            store.copy(key, first.location, checksum=first.checksum)
            with pytest.raises(ValueError, match="fresh key"):
                store.copy(key, first.location, checksum=first.checksum)
        with pytest.raises(ValueError, match="fresh key"):
            store.copy(key, first.location, checksum=first.checksum)

    def test_a_sweep_takes_a_copy_that_no_row_names_and_leaves_the_rest(self, store: Store) -> None:
        if not copies_data(store):
            return
        first = put(store, b"data")
        with store.claim() as key:
            copied = store.copy(key, first.location, checksum=first.checksum)
            assert store.is_claimed(copied.location)
            # Not even the first may go now, where both are one file.
            store.sweep({first.location}.intersection)
            assert read(store, copied) == b"data"
        assert not store.is_claimed(copied.location)
        assert store.sweep({first.location}.intersection).orphans == 1
        with pytest.raises(DataMissing):
            store.open(copied.location)
        assert read(store, first) == b"data"

    def test_many_threads_copy_the_same_data_at_once(self, store: Store) -> None:
        if not copies_data(store):
            return
        first = put(store, some_bytes(BLOCK))
        barrier = threading.Barrier(8)

        def work(_: int) -> Stored:
            barrier.wait(30)
            return put_copy(store, first)

        with ThreadPoolExecutor(8) as pool:
            copies = list(pool.map(work, range(8)))
        store.delete(first.location)
        assert [read(store, copied) == some_bytes(BLOCK) for copied in copies] == [True] * 8
