# SPDX-License-Identifier: Apache-2.0
"""Windows: reads are never short before the end, writes keep their order and lose nothing silently."""

import os
import random
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from glancefs.cache import BlockCache
from glancefs.errors import DataMissing, StoreFull
from glancefs.fuse.bridge import Bridge, open_bridge
from glancefs.fuse.mapping import WORTH_IT, FileMapping
from glancefs.fuse.statistics import Statistics
from glancefs.fuse.windows import LARGEST_REQUEST, AheadWindow, PageWindow, StreamWindow, WriteWindow
from glancefs.remote_reader import RemoteReaders
from tests.support.distance import Distance
from tests.support.mounting import eventually


def crossing(work: Callable[[Bridge], Awaitable[None]]) -> Statistics:
    statistics = Statistics()

    async def main() -> None:
        async with open_bridge(statistics=statistics) as bridge:
            await work(bridge)

    trio.run(main)
    return statistics


def test_cached_data_are_answered_without_a_hop(tmp_path: Path) -> None:
    data = os.urandom(3 * LARGEST_REQUEST)
    (tmp_path / "a").write_bytes(data)

    async def work(bridge: Bridge) -> None:
        pages = PageWindow(bridge=bridge, statistics=statistics)
        with (tmp_path / "a").open("rb") as file:
            assert bytes(await pages.read(file.fileno(), 5, LARGEST_REQUEST)) == data[5 : 5 + LARGEST_REQUEST]

    statistics = Statistics()
    hops = crossing(work).hops
    assert (statistics.cache_hits, hops) == (1, 0)


def test_what_the_page_cache_lacks_is_fetched_whole(tmp_path: Path) -> None:
    data = os.urandom(3 * LARGEST_REQUEST)
    path = tmp_path / "a"
    path.write_bytes(data)

    async def work(bridge: Bridge) -> None:
        pages = PageWindow(bridge=bridge, statistics=Statistics())
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), LARGEST_REQUEST // 2, 0, os.POSIX_FADV_DONTNEED)
            for offset in range(0, len(data), LARGEST_REQUEST):
                got = await pages.read(file.fileno(), offset, LARGEST_REQUEST)
                assert bytes(got) == data[offset : offset + LARGEST_REQUEST]

    crossing(work)
    assert path.stat().st_size == len(data)


def test_what_is_in_memory_is_shown_without_a_copy_and_what_is_not_is_fetched(tmp_path: Path) -> None:
    data = os.urandom(3 * LARGEST_REQUEST + 5000)
    path = tmp_path / "a"
    path.write_bytes(data)
    places = [(0, LARGEST_REQUEST), (5, WORTH_IT), (4096, LARGEST_REQUEST), (len(data) - WORTH_IT, WORTH_IT), (7, 100)]

    async def work(bridge: Bridge) -> None:
        pages = PageWindow(bridge=bridge, statistics=statistics)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            mapping = FileMapping.of(file.fileno(), len(data))
            assert mapping is not None
            for is_in_memory in (True, False):
                if not is_in_memory:
                    mapping.rest()
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for offset, size in places:
                    got = await pages.read(file.fileno(), offset, size, mapping=mapping)
                    assert bytes(got) == data[offset : offset + size]
            assert mapping.part(len(data) - 10, 11) is None
            assert mapping.part(0, 3 * LARGEST_REQUEST) is None
            mapping.close()

    statistics = Statistics()
    crossing(work)
    assert statistics.cache_hits >= len(places)


def test_a_mapped_file_that_became_shorter_shows_no_zeros_for_data(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * (WORTH_IT + 4096))

    async def work(bridge: Bridge) -> None:
        pages = PageWindow(bridge=bridge, statistics=Statistics())
        with path.open("rb") as file:
            mapping = FileMapping.of(file.fileno(), WORTH_IT + 4096)
            assert mapping is not None
            os.truncate(path, WORTH_IT + 10)
            with pytest.raises(DataMissing):
                await pages.read(file.fileno(), 4096, WORTH_IT, mapping=mapping)
            mapping.close()

    crossing(work)
    assert path.stat().st_size == WORTH_IT + 10


def test_small_files_and_those_of_others_are_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (WORTH_IT - 1))
    with (tmp_path / "a").open("rb") as file:
        assert FileMapping.of(file.fileno(), WORTH_IT - 1) is None
    with (tmp_path / "a").open("ab") as file:
        file.write(b"x")
        if os.geteuid() == 0:
            os.chown(tmp_path / "a", 1234, -1)
            assert FileMapping.of(file.fileno(), WORTH_IT) is None


def test_data_that_end_too_early_are_an_error_and_no_end_of_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"short")

    async def work(bridge: Bridge) -> None:
        pages = PageWindow(bridge=bridge, statistics=Statistics())
        with (tmp_path / "a").open("rb") as file, pytest.raises(DataMissing):
            await pages.read(file.fileno(), 0, 4096)

    crossing(work)
    assert (tmp_path / "a").exists()


def test_a_stream_is_asked_in_large_pieces() -> None:
    data = os.urandom(10_000_000)
    asked: list[tuple[int, int]] = []

    def read_at(offset: int, size: int) -> bytes:
        asked.append((offset, size))
        return data[offset : offset + size]

    async def work(bridge: Bridge) -> None:
        stream = StreamWindow(bridge=bridge, read_at=read_at)
        for offset in range(0, len(data) - 65_536, 65_536):
            assert bytes(await stream.read(offset, 65_536)) == data[offset : offset + 65_536]
        assert bytes(await stream.read(0, 10)) == data[:10]

    crossing(work)
    assert len(asked) <= 5


@pytest.mark.parametrize("seed", range(8))
def test_writes_at_any_offset_arrive_as_if_each_had_been_made_at_once(seed: int) -> None:
    chance = random.Random(seed)
    expected = bytearray()
    stored = bytearray()

    def put(target: bytearray, offset: int, data: bytes | memoryview) -> int:
        if len(target) < offset + len(data):
            target.extend(bytes(offset + len(data) - len(target)))
        target[offset : offset + len(data)] = data
        return len(data)

    async def work(bridge: Bridge) -> None:
        window = WriteWindow(bridge=bridge, write_at=lambda offset, data: put(stored, offset, data))
        answered: list[int] = []
        offset = taken = 0
        for _ in range(300):
            if chance.random() < 0.3:
                offset = chance.randrange(3_000_000)
            data = chance.randbytes(chance.choice([1, 100, 4096, 65_536, LARGEST_REQUEST]))
            if chance.random() < 0.5 and window.take(offset, memoryview(data), partial(answered.append, offset)):
                taken += 1
            else:
                await window.put(offset, data)
            put(expected, offset, data)
            offset += len(data)
            if chance.random() < 0.05:
                await window.drain()
                assert stored == expected
        await window.drain()
        assert window.is_clean
        assert window.end == len(expected)
        assert len(answered) == taken > 0

    crossing(work)
    assert stored == expected


def test_small_writes_in_a_run_become_few_large_ones() -> None:
    sizes: list[int] = []

    def write_at(_: int, data: bytes | memoryview) -> int:
        sizes.append(len(data))
        return len(data)

    async def work(bridge: Bridge) -> None:
        window = WriteWindow(bridge=bridge, write_at=write_at)
        for number in range(1024):
            await window.put(number * 4096, bytes(4096))
        await window.drain()

    crossing(work)
    assert sizes == [LARGEST_REQUEST] * 4


def test_who_writes_faster_than_the_disk_is_answered_once_there_is_room_again() -> None:
    gate = threading.Event()
    answered: list[int] = []
    taken = 40

    def write_at(_: int, data: bytes | memoryview) -> int:
        assert gate.wait(60)
        return len(data)

    async def work(bridge: Bridge) -> None:
        window = WriteWindow(bridge=bridge, write_at=write_at)
        data = memoryview(bytes(LARGEST_REQUEST))
        for number in range(taken):
            assert window.take(number * LARGEST_REQUEST, data, partial(answered.append, number))
            await trio.lowlevel.checkpoint()
        assert 0 < len(answered) < taken
        gate.set()
        await window.drain()
        assert sorted(answered) == list(range(taken))

    crossing(work)


def test_who_waits_for_room_is_answered_when_a_write_fails_and_told_at_the_next() -> None:
    gate = threading.Event()
    answered: list[int] = []

    def write_at(_offset: int, _data: bytes | memoryview) -> int:
        assert gate.wait(60)
        raise StoreFull("no room")

    async def work(bridge: Bridge) -> None:
        window = WriteWindow(bridge=bridge, write_at=write_at)
        data = memoryview(bytes(LARGEST_REQUEST))
        for number in range(20):
            assert window.take(number * LARGEST_REQUEST, data, partial(answered.append, number))
            await trio.lowlevel.checkpoint()
        gate.set()
        with pytest.raises(StoreFull):
            await window.drain()
        assert len(answered) == 20
        assert not window.take(0, data, partial(answered.append, 20))
        with pytest.raises(StoreFull):
            await window.put(0, b"more")
        assert len(answered) == 20

    crossing(work)


def test_a_write_that_failed_after_it_was_accepted_is_told_from_then_on() -> None:
    def write_at(_offset: int, _data: bytes | memoryview) -> int:
        raise StoreFull("no room")

    async def work(bridge: Bridge) -> None:
        window = WriteWindow(bridge=bridge, write_at=write_at)
        await window.put(0, b"lost")
        for _ in range(2):
            with pytest.raises(StoreFull):
                await window.drain()
        with pytest.raises(StoreFull):
            await window.put(0, b"more")

    statistics = crossing(work)
    assert statistics.hops == 1


def test_what_a_remote_reader_has_goes_without_a_hop_and_reads_do_not_wait_for_each_other(tmp_path: Path) -> None:
    source = Distance(8 * LARGEST_REQUEST)
    readers = RemoteReaders(source_of=lambda _: source, cache=BlockCache(path=tmp_path, limit=64 << 20))
    statistics = Statistics()

    async def work(bridge: Bridge) -> None:
        pages = PageWindow(bridge=bridge, statistics=statistics)
        with readers.open(source.image) as reader:
            window = AheadWindow(bridge=bridge, statistics=statistics, pages=pages, reader=reader)
            source.gate = threading.Event()
            got: list[bytes] = []

            async def first() -> None:
                got.append(bytes(await window.read(0, 4096)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await trio.to_thread.run_sync(eventually, lambda: source.asked)
                gate, source.gate = source.gate, None
                with trio.fail_after(30):
                    got.append(bytes(await window.read(LARGEST_REQUEST, 4096)))
                gate.set()
            assert got == [source.part(LARGEST_REQUEST, LARGEST_REQUEST + 4096), source.part(0, 4096)]
            for start in range(0, source.size, LARGEST_REQUEST):
                got_now = bytes(await window.read(start, LARGEST_REQUEST))
                assert got_now == source.part(start, start + LARGEST_REQUEST)
            await trio.to_thread.run_sync(eventually, lambda: reader.file is not None)
            asked = len(source.asked)
            assert bytes(await window.read(5, 100)) == source.part(5, 105)
            assert len(source.asked) == asked

    crossing(work)
    readers.close()
    assert statistics.cache_hits > 0
