# SPDX-License-Identifier: Apache-2.0
"""What every store promises, as tests: one suite, run over each backend.

Answers for the sentences of `glancefs.stores.base`. A backend's test class says how to make one, and one with little
room; what only some stores can do is asked of their capabilities.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glancefs.errors import DataMissing, RegistryUnavailable, StoreFull, UploadTruncated
from glancefs.model import Location
from glancefs.stores.base import Store, Stored, Swept
from glancefs.stores.pipeline import BLOCK, BLOCKS, SMALL
from tests.contract.store_copying import CopyingContract
from tests.contract.store_steps import all_known, checksum_of, none_known, put, read, some_bytes

SIZES = [0, 1, SMALL - 1, SMALL, SMALL + 1, BLOCK, BLOCK + SMALL, (BLOCKS + 2) * BLOCK + 7]
# Many examples run over one store, and each backend inherits the test; no example minds what others put there.
MANY_EXAMPLES = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)
SIZE = st.integers(0, 3 * BLOCK)
PIECES = st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=8)
SAID = st.none() | st.integers(0, 4 * BLOCK)
START, STOP = st.integers(0, 1200), st.none() | st.integers(0, 1200)
HOSTILE_KEYS = ["", ".", "..", "../../etc/passwd", "/etc/passwd", "a" * 32 + "\n", "A" * 32, "a\0b", "é" * 32, "ab/cd"]


class Pieces:
    """A source that gives as much at a time as a network would: now this, now that."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = io.BytesIO(data)
        self._sizes = sizes
        self._turn = 0

    def readinto(self, buffer: memoryview, /) -> int:
        size = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        return self._data.readinto(buffer[:size])


class Breaking:
    """A source that does something after so many bytes, such as raising an error."""

    def __init__(self, after: int, do: Callable[[], object]) -> None:
        self._left = after
        self._do = do

    def readinto(self, buffer: memoryview, /) -> int:
        size = min(len(buffer), self._left)
        if not size:
            self._do()
        self._left -= size
        return size


class NeverRead:
    def readinto(self, buffer: memoryview, /) -> int:
        raise AssertionError("the data were asked for")


def check_pieces(store: Store, size: int, pieces: list[int], said: int | None) -> None:
    """Add data that come in these pieces, under a size that may be wrong."""
    data = some_bytes(size)
    with store.claim() as key:
        stored = store.add(key, Pieces(data, [max(piece, size // 500) for piece in pieces]), size=said)
    assert (stored.size, stored.checksum) == (size, checksum_of(data))
    assert read(store, stored) == data
    store.delete(stored.location)


def check_range(store: Store, start: int, stop: int | None) -> None:
    """Read a range of a thousand bytes."""
    data = some_bytes(1000)
    stored = put(store, data)
    assert read(store, stored, start, stop) == data[start : max(start, stop) if stop is not None else None]
    store.delete(stored.location)


def check_error_of_source(store: Store, error: BaseException, *, after: int, size: int | None) -> None:
    """Add data whose source raises an error after so many bytes."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised, store.claim() as key:
        store.add(key, Breaking(after, fail), size=size)
    assert raised.value is error
    with pytest.raises(DataMissing):
        store.open(Location(store=store.scheme, key=key))
    assert store.sweep(none_known) == Swept()


class StoreContract(CopyingContract):
    """Subclass this as ``Test...`` and say how a store is made."""

    many = 700
    """More data than a store looks at together when it sweeps."""
    turns = 8
    """How often each of sixteen threads uses the store."""

    def make(self, folder: Path) -> Store:
        """Make an empty store that may use this folder."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        yield from self.checked(self.make(tmp_path))

    def checked(self, store: Store) -> Iterator[Store]:
        """Lend a store, and see afterwards, whatever a test did, that no upload was left half done."""
        yield store
        assert store.sweep(all_known) == Swept()
        store.close()

    @pytest.fixture
    def small_store(self, tmp_path: Path) -> Iterator[Store]:
        """An empty store with room for more than 8 and less than 64 MiB."""
        raise NotImplementedError

    # Adding

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("is_size_known", [True, False])
    def test_what_is_added_reads_back_with_its_size_and_checksum(
        self, store: Store, size: int, *, is_size_known: bool
    ) -> None:
        data = some_bytes(size)
        with store.claim() as key:
            stored = store.add(key, io.BytesIO(data), size=size if is_size_known else None)
            assert stored == Stored(
                location=Location(store=store.scheme, key=key), size=size, checksum=checksum_of(data)
            )
        assert read(store, stored) == data
        assert store.size(stored.location) == size
        assert Location.parse(str(stored.location)) == stored.location

    @MANY_EXAMPLES
    @given(size=SIZE, pieces=PIECES, said=SAID)
    @example(size=SMALL, pieces=[SMALL], said=SMALL - 1)
    @example(size=SMALL + 1, pieces=[BLOCK], said=10)
    @example(size=10, pieces=[1], said=2 * BLOCK)
    def test_neither_small_pieces_nor_a_wrong_size_change_what_is_kept(
        self, store: Store, size: int, pieces: list[int], said: int | None
    ) -> None:
        check_pieces(store, size, pieces, said)

    @pytest.mark.parametrize("after", [0, 1, SMALL, SMALL + BLOCK, 7 * BLOCK + 1])
    @pytest.mark.parametrize("is_size_known", [True, False])
    @pytest.mark.parametrize(
        "error", [UploadTruncated("gone"), ConnectionResetError("gone"), OSError(28, "not ours"), KeyboardInterrupt()]
    )
    def test_an_error_of_the_source_passes_through_and_nothing_stays(
        self, store: Store, after: int, error: BaseException, *, is_size_known: bool
    ) -> None:
        check_error_of_source(store, error, after=after, size=8 * BLOCK if is_size_known else None)

    @pytest.mark.parametrize("size", [10, 5 * BLOCK])
    def test_data_are_not_visible_before_they_are_complete(self, store: Store, size: int) -> None:
        def look() -> None:
            for ask in (store.open, store.size):
                with pytest.raises(DataMissing):
                    ask(location)

        with store.claim() as key:
            location = Location(store=store.scheme, key=key)
            look()
            store.add(key, Breaking(size, look), size=size)
            assert store.size(location) == size

    def test_a_key_takes_one_upload_and_only_while_it_is_claimed(self, store: Store) -> None:
        with store.claim() as key:
            stored = store.add(key, io.BytesIO(b"first"), size=5)
            with pytest.raises(ValueError, match="no fresh key"):
                store.add(key, NeverRead(), size=6)
        for unclaimed in (key, "a" * 32):
            with pytest.raises(ValueError, match="no fresh key"):
                store.add(unclaimed, NeverRead(), size=6)
        assert read(store, stored) == b"first"

    # Room

    def test_what_has_no_room_is_refused_before_its_first_byte(self, small_store: Store) -> None:
        if not small_store.capabilities.knows_room:
            assert small_store.space() is None
            return
        for size in (64 * BLOCK, 2**40, 2**62):
            with small_store.claim() as key, pytest.raises(StoreFull):
                small_store.add(key, NeverRead(), size=size)
        assert put(small_store, some_bytes(BLOCK)).size == BLOCK

    @pytest.mark.parametrize("said", [None, 2 * BLOCK])
    def test_a_store_that_runs_full_in_the_middle_keeps_nothing_of_it(
        self, small_store: Store, said: int | None
    ) -> None:
        before = small_store.space()
        with small_store.claim() as key, pytest.raises(StoreFull):
            small_store.add(key, Breaking(64 * BLOCK, lambda: None), size=said)
        assert small_store.sweep(none_known) == Swept()
        kept = put(small_store, some_bytes(5 * BLOCK))
        small_store.delete(kept.location)
        after = small_store.space()
        assert (before is not None) == (after is not None) == small_store.capabilities.knows_room
        # A folder may have been made on the way.
        assert before is None or after is None or before.free - after.free < BLOCK

    def test_room_promised_to_one_upload_is_not_given_to_another(self, small_store: Store) -> None:
        space = small_store.space()
        assert (space is not None) == small_store.capabilities.knows_room
        if space is None:
            return
        most = space.free - 2 * BLOCK

        def compete() -> None:
            with small_store.claim() as other, pytest.raises(StoreFull):
                small_store.add(other, NeverRead(), size=4 * BLOCK)

        with small_store.claim() as key:
            assert small_store.add(key, Breaking(most, compete), size=most).size == most

    def test_room_is_told(self, store: Store) -> None:
        space = store.space()
        assert space is None or 0 <= space.free <= space.total

    # Reading

    @MANY_EXAMPLES
    @given(start=START, stop=STOP)
    @example(start=0, stop=None)
    @example(start=0, stop=0)
    @example(start=1000, stop=None)
    @example(start=999, stop=1000)
    def test_a_range_is_exactly_that_range(self, store: Store, start: int, stop: int | None) -> None:
        check_range(store, start, stop)

    @pytest.mark.parametrize("stop", [None, 2 * BLOCK])
    def test_a_range_reads_in_pieces_to_its_end(self, store: Store, stop: int | None) -> None:
        data = some_bytes(3 * BLOCK)
        stored = put(store, data)
        with store.open(stored.location, 5, stop) as stream:
            pieces = iter(lambda: stream.read(100_000), b"")
            assert b"".join(pieces) == data[5:stop]
            assert stream.read(1) == b""

    def test_the_whole_is_a_real_file_where_that_is_said(self, store: Store) -> None:
        stored = put(store, b"0123456789")
        with store.open(stored.location) as stream:
            if store.capabilities.real_files:
                assert os.pread(stream.fileno(), 3, 4) == b"456"
                assert os.fstat(stream.fileno()).st_size == stored.size
            else:
                assert stream.read() == b"0123456789"

    @pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 3 * BLOCK), (2, None)])
    def test_deleted_data_stay_readable_for_those_who_have_them_open(
        self, store: Store, start: int, stop: int | None
    ) -> None:
        data = some_bytes(3 * BLOCK)
        stored = put(store, data)
        with store.open(stored.location, start, stop) as stream:
            store.delete(stored.location)
            assert b"".join(iter(lambda: stream.read(BLOCK), b"")) == data[start:]

    # What is not there

    def test_what_was_deleted_is_missing_and_may_be_deleted_again(self, store: Store) -> None:
        stored = put(store, b"gone")
        store.delete(stored.location)
        store.delete(stored.location)
        for ask in (store.open, store.size):
            with pytest.raises(DataMissing):
                ask(stored.location)
        assert store.sweep(none_known) == Swept()

    @pytest.mark.parametrize("key", [*HOSTILE_KEYS, "0" * 32, "incoming"])
    def test_a_key_that_no_store_gave_leads_nowhere(self, store: Store, key: str) -> None:
        put(store, b"something")
        location = Location(store=store.scheme, key=key)
        for ask in (store.open, store.size):
            with pytest.raises(DataMissing):
                ask(location)
        store.delete(location)
        assert not store.is_claimed(location)

    def test_a_location_of_another_store_is_not_ours(self, store: Store) -> None:
        stored = put(store, b"mine")
        elsewhere = Location(store="elsewhere", key=stored.location.key)
        with pytest.raises(DataMissing):
            store.open(elsewhere)
        store.delete(elsewhere)
        assert read(store, stored) == b"mine"

    # Claims

    def test_a_claim_lasts_until_its_context_ends(self, store: Store) -> None:
        with store.claim() as key, store.claim() as other:
            location = Location(store=store.scheme, key=key)
            assert key != other
            assert store.is_claimed(location)
            stored = store.add(key, io.BytesIO(b"data"), size=4)
            assert store.is_claimed(location)
        assert not store.is_claimed(location)
        assert read(store, stored) == b"data"

    def test_a_claim_without_data_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(RuntimeError), store.claim() as key:
            raise RuntimeError
        assert not store.is_claimed(Location(store=store.scheme, key=key))
        assert store.sweep(none_known) == Swept()

    # Sweeping

    def test_a_sweep_removes_what_no_row_names_and_nothing_else(self, store: Store) -> None:
        wanted, unwanted = put(store, b"wanted"), put(store, b"unwanted")

        def known(locations: Collection[Location]) -> Collection[Location]:
            return {wanted.location}.intersection(locations)

        swept = store.sweep(known)
        assert (swept.uploads, swept.orphans, swept.requeued) == (0, 1, 0)
        assert swept.size >= len(b"unwanted")
        assert read(store, wanted) == b"wanted"
        with pytest.raises(DataMissing):
            store.open(unwanted.location)
        assert store.sweep(known) == Swept()

    def test_a_sweep_asks_about_many_in_small_numbers(self, store: Store) -> None:
        stored = {put(store, b"").location for _ in range(self.many)}
        asked: list[int] = []

        def known(locations: Collection[Location]) -> Collection[Location]:
            asked.append(len(locations))
            return [location for location in locations if location.key[0] in "01234567"]

        assert store.sweep(known).orphans == sum(location.key[0] in "89abcdef" for location in stored)
        assert max(asked) <= 1000

    def test_a_sweep_touches_nothing_claimed(self, store: Store) -> None:
        with store.claim() as key, store.claim() as other:
            assert store.sweep(none_known) == Swept()
            stored = store.add(key, Breaking(3 * BLOCK, lambda: sweep_meanwhile(store)), size=None)
            assert store.sweep(none_known) == Swept()
            assert store.size(stored.location) == 3 * BLOCK
            assert store.is_claimed(Location(store=store.scheme, key=other))
        assert store.sweep(none_known).orphans == 1

    def test_a_sweep_believes_the_last_word_on_each(self, store: Store) -> None:
        stored = [put(store, data) for data in (b"late", b"", b"later")]
        asked: set[Location] = set()

        def known(locations: Collection[Location]) -> Collection[Location]:
            # By the time of the second question each has its row.
            committed = asked.intersection(locations)
            asked.update(locations)
            return committed

        assert store.sweep(known) == Swept()
        assert [read(store, one) for one in stored] == [b"late", b"", b"later"]

    def test_a_sweep_that_gets_no_answer_removes_nothing(self, store: Store) -> None:
        stored = put(store, b"precious")

        def known(locations: Collection[Location]) -> Collection[Location]:
            raise RegistryUnavailable("no answer")

        with pytest.raises(RegistryUnavailable):
            store.sweep(known)
        assert read(store, stored) == b"precious"

    # Threads

    def test_sixteen_threads_do_not_get_into_each_others_way(self, store: Store) -> None:
        rows: set[Location] = set()
        barrier = threading.Barrier(17)

        def work(number: int) -> None:
            barrier.wait()
            for turn in range(self.turns):
                data = some_bytes(number * 1000 + turn * SMALL // 3)
                with store.claim() as key:
                    stored = store.add(key, io.BytesIO(data), size=len(data) if turn % 2 else None)
                    rows.add(stored.location)
                assert read(store, stored) == data
                if turn % 3:
                    rows.discard(stored.location)
                    store.delete(stored.location)

        def sweep() -> None:
            barrier.wait()
            for _ in range(2 * self.turns):
                store.sweep(lambda locations: rows.copy().intersection(locations))

        with ThreadPoolExecutor(17) as pool:
            sweeping = pool.submit(sweep)
            list(pool.map(work, range(16)))
            sweeping.result()
        assert len(rows) == 16 * len(range(0, self.turns, 3))
        assert all(store.size(location) >= 0 for location in rows)

    # Adopting

    def test_a_store_says_where_files_to_adopt_are_made_if_it_adopts_any(self, store: Store) -> None:
        assert (store.staging_folder is not None) == store.capabilities.adopts_files


def sweep_meanwhile(store: Store) -> None:
    assert store.sweep(none_known) == Swept()
