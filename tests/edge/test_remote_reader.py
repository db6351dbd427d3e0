# SPDX-License-Identifier: Apache-2.0
"""Reading at a distance: the bytes are right whatever the pattern, a jump costs what it needs, memory is bounded."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.cache import BlockCache
from glancefs.errors import StoreUnavailable, Unavailable
from glancefs.remote_reader import MOST_AHEAD, Fetching, RemoteReader, RemoteReaders
from glancefs.streams import GRANULE
from tests.support.distance import Distance
from tests.support.mounting import eventually

KIB = 1 << 10
MIB = 1 << 20

Open = Callable[..., RemoteReader]


@pytest.fixture
def fetching() -> Iterator[Fetching]:
    """What the readers of a test share."""
    made = Fetching(threads=8)
    yield made
    made.close()
    assert made.memory.taken == 0


@pytest.fixture
def opened(fetching: Fetching) -> Iterator[Open]:
    """Open sources; at the end all are closed."""
    made: list[RemoteReader] = []

    def make(source: Distance, *, most_ahead: int = MOST_AHEAD, patience: float = 0) -> RemoteReader:
        reader = RemoteReader(
            image=source.image, source=source, fetching=fetching, most_ahead=most_ahead, patience=patience
        )
        made.append(reader)
        return reader

    yield make
    for reader in made:
        reader.close()


def test_a_whole_image_comes_in_few_requests(opened: Open) -> None:
    source = Distance(40 * MIB + 77)
    assert b"".join(opened(source).iter(chunk_size=MIB)) == source.data
    assert source.fetched_once
    assert len(source.asked) < 60


def test_random_reads_cost_a_granule_each(opened: Open) -> None:
    source = Distance(256 * MIB, is_sparse=True)
    reader = opened(source)
    places = random.Random(8).sample(range(source.size // 4096), 500)
    for place in places:
        assert reader.read_at(place * 4096, 4096) == source.part(place * 4096, (place + 1) * 4096)
    assert max(stop - start for start, stop in source.asked) == GRANULE
    assert sum(stop - start for start, stop in source.asked) <= 500 * GRANULE


def test_a_boot_costs_little_more_than_it_reads(opened: Open) -> None:
    source = Distance(256 * MIB, is_sparse=True)
    reader = opened(source)
    chance = random.Random(1)
    read = 0
    for _ in range(100):
        place = chance.randrange(0, source.size - MIB) & -4096
        for step in range(chance.choice([1, 1, 1, 1, 2, 4, 30])):
            reader.read_at(place + step * 4096, 4096)
            read += 4096
    assert sum(stop - start for start, stop in source.asked) <= 2 * read + 2 * 100 * GRANULE


def test_runs_that_take_turns_find_their_bytes_here(opened: Open) -> None:
    source = Distance(64 * MIB)
    reader = opened(source)
    for step in range(32):
        for number in range(4):
            start = number * 16 * MIB + step * 256 * KIB
            assert reader.read_at(start, 256 * KIB) == source.part(start, start + 256 * KIB)
    assert source.nothing_twice
    assert len(source.asked) < 150


def test_what_comes_next_is_fetched_before_it_is_asked_for(opened: Open) -> None:
    source = Distance(32 * MIB)
    reader = opened(source)
    reader.read_at(0, MIB)
    reader.read_at(MIB, MIB)
    eventually(lambda: reader.at_hand(2 * MIB, MIB) is not None)
    assert max(stop for _, stop in source.asked) >= 3 * MIB


def test_a_run_is_fetched_by_several_connections_once_it_has_to_wait(opened: Open) -> None:
    source = Distance(64 * MIB, seconds=0.02)
    b"".join(opened(source).iter(chunk_size=MIB))
    assert source.most_at_once > 1


def test_readers_of_the_same_place_share_one_request(opened: Open) -> None:
    source = Distance(MIB, seconds=0.05)
    reader = opened(source)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: reader.read_at(number, 4096), range(8)))
    assert found == [source.part(number, number + 4096) for number in range(8)]
    assert len(source.asked) == 1


def test_many_threads_read_what_is_there(opened: Open) -> None:
    source = Distance(16 * MIB, seconds=0.001)
    reader = opened(source)

    def read(seed: int) -> bool:
        chance = random.Random(seed)
        for _ in range(30):
            start, size = chance.randrange(source.size), chance.choice([1, 4096, 100_000, MIB])
            if reader.read_at(start, size) != source.part(start, start + size):
                return False
        return reader.read_at(0, source.size) == source.data

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read, range(6)))


def test_memory_of_one_file_and_of_all_is_bounded() -> None:
    fetching = Fetching(most_memory=8 * MIB, threads=4)
    sources = [Distance(24 * MIB) for _ in range(4)]
    readers = [RemoteReader(image=source.image, source=source, fetching=fetching) for source in sources]
    most = 0
    for step in range(24):
        for reader, source in zip(readers, sources, strict=True):
            assert reader.read_at(step * MIB, MIB) == source.part(step * MIB, (step + 1) * MIB)
            most = max(most, fetching.memory.taken)
    for reader in readers:
        reader.close()
    fetching.close()
    # What is read just now is beyond it.
    assert most <= 8 * MIB + MIB
    assert fetching.memory.taken == 0


def test_files_that_are_not_read_any_more_make_room_for_others() -> None:
    fetching = Fetching(most_memory=6 * MIB, threads=2)
    sources = [Distance(32 * MIB) for _ in range(2)]
    idle, busy = (RemoteReader(image=source.image, source=source, fetching=fetching) for source in sources)
    for step in range(5):
        idle.read_at(step * MIB, MIB)
    eventually(lambda: fetching.memory.taken >= 2 * MIB)
    for place in random.Random(2).sample(range(32), 32):
        busy.read_at(place * MIB, GRANULE // 2)
    for step in range(32):
        busy.read_at(step * MIB, MIB)
    for reader in (idle, busy):
        reader.close()
    fetching.close()
    assert len(sources[1].asked) < 90


def test_nothing_is_read_ahead_where_that_is_not_wanted(opened: Open) -> None:
    source = Distance(8 * MIB)
    reader = opened(source, most_ahead=0)
    for step in range(32):
        reader.read_at(step * 256 * KIB, 256 * KIB)
    assert source.asked == [(step * 256 * KIB, (step + 1) * 256 * KIB) for step in range(32)]


def test_a_server_that_is_away_is_an_error_and_then_it_is_back(opened: Open) -> None:
    source = Distance(16 * MIB)
    reader = opened(source)
    for step in range(4):
        reader.read_at(step * MIB, MIB)
    source.error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        b"".join(reader.iter(4 * MIB))
    source.error = None
    assert b"".join(reader.iter()) == source.data


def test_a_server_that_is_busy_for_a_moment_is_asked_again(opened: Open) -> None:
    source = Distance(MIB)
    source.error = Unavailable("busy")
    reader = opened(source, patience=60)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(reader.read_at, 0, 4096)
        eventually(lambda: len(source.asked) >= 2)
        source.error = None
        assert waiting.result() == source.part(0, 4096)


def test_another_part_than_the_one_asked_for_is_an_error(opened: Open) -> None:
    source = Distance(MIB)
    source.cut = 5
    with pytest.raises(Unavailable):
        opened(source).read_at(0, 4096)


def test_everybody_who_waits_for_a_part_hears_that_it_failed(opened: Open) -> None:
    source = Distance(MIB, seconds=0.05)
    source.error = StoreUnavailable("away")
    reader = opened(source)
    failures = []

    def read() -> None:
        try:
            reader.read_at(0, 4096)
        except StoreUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 5


def test_closing_does_not_wait_for_what_is_on_its_way(fetching: Fetching) -> None:
    source = Distance(32 * MIB)
    source.gate = threading.Event()
    reader = RemoteReader(image=source.image, source=source, fetching=fetching)
    source.gate.set()
    reader.read_at(0, MIB)
    source.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(reader.read_at, MIB, MIB)
        eventually(lambda: len(source.asked) >= 2)
        reader.close()
        reader.close()
        source.gate.set()
        assert waiting.result() == source.part(MIB, 2 * MIB)


def test_an_image_without_bytes_is_empty(opened: Open) -> None:
    source = Distance(0)
    reader = opened(source)
    assert (reader.read_at(0, 10), list(reader.iter()), reader.file) == (b"", [], None)
    assert source.asked == []


def test_reading_behind_the_end_gives_what_there_is(opened: Open) -> None:
    source = Distance(100_000)
    reader = opened(source)
    assert reader.read_at(99_990, 100) == source.data[99_990:]
    assert reader.read_at(100_000, 1) == b""


@given(
    reads=st.lists(st.tuples(st.integers(0, 3 * MIB), st.sampled_from([1, 4096, 70_000, 300_000])), max_size=30),
    size=st.integers(0, 3 * MIB),
    ahead=st.sampled_from([0, 256 * KIB, MOST_AHEAD]),
    most=st.sampled_from([0, MIB, 256 * MIB]),
)
def test_any_pattern_of_reads_gives_the_bytes(reads: list[tuple[int, int]], size: int, ahead: int, most: int) -> None:
    source = Distance(size)
    fetching = Fetching(most_memory=most, threads=2)
    with RemoteReader(image=source.image, source=source, fetching=fetching, most_ahead=ahead) as reader:
        position = 0
        for start, count in reads:
            # Half of them go on where the last one ended.
            place = start if start % 2 else position
            assert reader.read_at(place, count) == source.part(place, place + count)
            position = place + count
    fetching.close()
    assert fetching.memory.taken == 0


def test_what_the_cache_has_is_not_asked_for_again(tmp_path: Path) -> None:
    source = Distance(8 * MIB)
    for run in range(2):
        readers = RemoteReaders(source_of=lambda _: source, cache=BlockCache(path=tmp_path, limit=64 * MIB))
        with readers.open(source.image) as reader:
            assert b"".join(reader.iter(chunk_size=128 * KIB)) == source.data
            if run == 0:
                eventually(lambda: reader.file is not None)
        readers.close()
    assert source.fetched_once


def test_a_whole_image_is_a_real_file(tmp_path: Path) -> None:
    source = Distance(3 * MIB + 5)
    readers = RemoteReaders(source_of=lambda _: source, cache=BlockCache(path=tmp_path, limit=64 * MIB))
    with readers.open(source.image) as reader:
        assert reader.file is None
        b"".join(reader.iter())
        eventually(lambda: reader.file is not None)
    with readers.open(source.image) as reader:
        assert reader.file is not None
        assert reader.file.read() == source.data
        assert reader.read_at(MIB, 10) == source.part(MIB, MIB + 10)
    readers.close()


def test_without_the_server_what_is_cached_is_there_and_the_rest_is_an_error(tmp_path: Path) -> None:
    source = Distance(8 * MIB)
    for is_away in (False, True):
        source.error = StoreUnavailable("away") if is_away else None
        readers = RemoteReaders(source_of=lambda _: source, cache=BlockCache(path=tmp_path, limit=64 * MIB), patience=0)
        with readers.open(source.image) as reader:
            assert reader.read_at(5 * MIB, 4096) == source.part(5 * MIB, 5 * MIB + 4096)
            if is_away:
                with pytest.raises(StoreUnavailable):
                    reader.read_at(7 * MIB, 4096)
        readers.close()


def test_a_long_read_takes_from_the_cache_what_it_has(tmp_path: Path) -> None:
    source = Distance(4 * MIB)
    readers = RemoteReaders(source_of=lambda _: source, cache=BlockCache(path=tmp_path, limit=64 * MIB), most_ahead=0)
    with readers.open(source.image) as reader:
        reader.read_at(MIB, GRANULE)
        reader.read_at(2 * MIB, GRANULE)
        assert reader.read_at(0, 4 * MIB) == source.data
    readers.close()
    assert source.fetched_once
