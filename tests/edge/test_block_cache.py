# SPDX-License-Identifier: Apache-2.0
"""The local cache: whatever happens to it, it never gives bytes that are not the image's, nor more than its room."""

import errno
import hashlib
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from glancefs.cache import BlockCache, CachedImage
from glancefs.cache.cache import SMALLEST
from glancefs.cache.folder import MARK
from glancefs.cache.image import SEGMENT
from glancefs.cache.index import BLOCK
from glancefs.errors import ConfigError
from tests.support.mounting import eventually
from tests.support.processes import run

MIB = 1 << 20
SIZE = 3 * MIB + 1000

Make = Callable[..., BlockCache]
Expect = Callable[..., None]


def checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def some(size: int = SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def opened(cache: BlockCache, data: bytes) -> CachedImage:
    image = cache.open(checksum(data), len(data))
    assert image is not None
    return image


def fill(image: CachedImage, data: bytes | bytearray, start: int = 0, stop: int | None = None) -> None:
    image.put(start, memoryview(data)[start:stop])


def keep(cache: BlockCache, data: bytes) -> None:
    """Have all of an image in the cache, verified."""
    image = opened(cache, data)
    for start in range(0, len(data), SEGMENT):
        fill(image, data, start, start + SEGMENT)
    wait_until_whole(image)
    image.close()


def wait_until_whole(image: CachedImage) -> None:
    eventually(lambda: image.is_whole)


def wait_until_dead(image: CachedImage) -> None:
    eventually(lambda: image.is_dead)


def used(path: Path) -> int:
    return sum(512 * file.lstat().st_blocks for file in path.rglob("*"))


def data_file(path: Path, data: bytes) -> Path:
    (found,) = path.glob(f"*/{hashlib.sha256(data).hexdigest()}")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Make caches in one folder; at the end all are closed."""
    made: list[BlockCache] = []

    def start(limit: int = 64 * MIB, path: Path = folder) -> BlockCache:
        made.append(BlockCache(path=path, limit=limit))
        return made[-1]

    yield start
    for cache in made:
        cache.close()


def test_blocks_come_back_as_far_as_they_are_here(make: Make) -> None:
    data = some()
    image = opened(make(), data)
    fill(image, data, BLOCK, 5 * BLOCK)
    assert bytes(image.read(BLOCK + 7, 9 * BLOCK)) == data[BLOCK + 7 : 5 * BLOCK]
    assert len(image.read(0, BLOCK)) == 0
    assert (image.has(BLOCK, 5 * BLOCK), image.has(BLOCK, 5 * BLOCK + 1)) == (True, False)
    assert [image.next_held(start, SIZE) for start in (0, 3 * BLOCK, 5 * BLOCK)] == [BLOCK, 3 * BLOCK, SIZE]
    image.close()


def test_what_is_in_memory_is_given_without_waiting(make: Make) -> None:
    data = some()
    image = opened(make(), data)
    fill(image, data, 0, MIB)
    found = image.read_now(100, MIB)
    assert found is not None
    assert bytes(found) == data[100:MIB]
    assert image.read_now(MIB - 10, MIB + 10) is None
    image.close()


def test_it_survives_a_restart(make: Make) -> None:
    data = some()
    cache = make()
    image = opened(cache, data)
    fill(image, data, MIB, 2 * MIB)
    image.close()
    again = opened(make(), data)
    assert bytes(again.read(MIB, 2 * MIB)) == data[MIB : 2 * MIB]
    assert len(again.read(0, 10)) == 0
    again.close()


def test_an_image_without_a_checksum_or_without_bytes_is_not_kept(make: Make) -> None:
    cache = make()
    assert cache.open(None, SIZE) is None
    assert cache.open("md5:0123", SIZE) is None
    assert cache.open(checksum(b""), 0) is None


def test_a_complete_image_is_verified_and_then_a_real_file(make: Make, folder: Path) -> None:
    data = some()
    cache = make()
    keep(cache, data)
    assert [file.name for file in folder.glob("*/*.index")] == []
    image = opened(cache, data)
    assert image.is_whole
    with image.file() as file:
        assert file.read() == data
    found = image.read_now(5, SIZE)
    assert found is not None
    assert bytes(found) == data[5:]
    image.close()


def test_who_has_it_open_when_it_becomes_whole_reads_on(make: Make) -> None:
    data = some()
    cache, other = make(), make()
    early, foreign = opened(cache, data), opened(other, data)
    fill(foreign, data, 0, MIB)
    keep(cache, data)
    assert early.is_whole
    assert bytes(early.read(MIB, 2 * MIB)) == data[MIB : 2 * MIB]
    assert bytes(foreign.read(0, MIB)) == data[:MIB]
    assert bytes(foreign.read(MIB, 2 * MIB)) == data[MIB : 2 * MIB]
    wait_until_whole(foreign)
    assert bytes(foreign.read(0, SIZE)) == data
    early.close()
    foreign.close()


def test_images_that_several_mounts_read_in_parts_become_whole(make: Make) -> None:
    data = some()
    caches = [make(), make()]
    images = [opened(cache, data) for cache in caches]
    fill(images[0], data, 0, MIB)
    fill(images[1], data, MIB, SIZE)
    for image in images:
        image.close()
    image = opened(caches[0], data)
    wait_until_whole(image)
    assert bytes(image.read(0, SIZE)) == data
    image.close()


def test_data_that_are_not_those_of_the_checksum_are_thrown_away(make: Make, folder: Path, expect_log: Expect) -> None:
    expect_log("not those of its checksum; they are fetched again")
    data, wrong = some(), bytearray(some())
    wrong[2 * MIB] ^= 1
    cache, other = make(), make()
    image, foreign = opened(cache, data), opened(other, data)
    fill(image, wrong)
    eventually(lambda: image.is_dead)
    assert len(image.read(0, MIB)) == len(foreign.read(0, MIB)) == 0
    image.close()
    foreign.close()
    eventually(lambda: not list(folder.glob(f"*/{hashlib.sha256(data).hexdigest()}*")))
    keep(cache, data)


def test_an_image_that_never_fits_its_checksum_is_not_kept_any_more(make: Make, expect_log: Expect) -> None:
    expect_log("they are fetched again")
    expect_log("it is not kept any more")
    data = some()
    cache = make()
    for _ in range(2):
        image = opened(cache, data)
        fill(image, bytes(SIZE))
        wait_until_dead(image)
        image.close()
    assert cache.open(checksum(data), SIZE) is None


def test_a_damaged_block_is_found_and_kept_anew(make: Make, folder: Path, expect_log: Expect) -> None:
    expect_log("was damaged; it is fetched again")
    data = some()
    first = opened(make(), data)
    fill(first, data, 0, 2 * MIB)
    first.close()
    with data_file(folder, data).open("r+b") as file:
        file.seek(BLOCK + 5)
        file.write(b"damage")
    image = opened(make(), data)
    assert image.read_now(BLOCK, 2 * BLOCK) is None
    assert bytes(image.read(0, 2 * MIB)) == data[:BLOCK]
    assert len(image.read(BLOCK, 2 * MIB)) == 0
    fill(image, data, BLOCK, 2 * BLOCK)
    assert bytes(image.read(0, 2 * MIB)) == data[: 2 * MIB]
    image.close()


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_cut_file_is_thrown_away(make: Make, folder: Path, expect_log: Expect, *, is_whole: bool) -> None:
    expect_log("is not as it was left")
    data = some()
    if is_whole:
        keep(make(), data)
    else:
        first = opened(make(), data)
        fill(first, data, 0, 2 * MIB)
        first.close()
    os.truncate(data_file(folder, data), MIB)
    image = opened(make(), data)
    assert not image.is_whole
    assert len(image.read(0, MIB)) == 0
    image.close()


def test_a_whole_file_that_somebody_wrote_to_is_thrown_away(make: Make, folder: Path, expect_log: Expect) -> None:
    expect_log("is not as it was left")
    data = some()
    keep(make(), data)
    file = data_file(folder, data)
    assert file.stat().st_mtime_ns == MARK
    with file.open("r+b") as opened_file:
        opened_file.write(b"damage")
    image = opened(make(), data)
    assert len(image.read(0, MIB)) == 0
    image.close()


@pytest.mark.parametrize("text", [b"", b"something else", bytes(5000)])
def test_an_index_that_is_none_is_thrown_away(make: Make, folder: Path, expect_log: Expect, text: bytes) -> None:
    expect_log("is not as it was left")
    data = some()
    first = opened(make(), data)
    fill(first, data, 0, MIB)
    first.close()
    (index,) = folder.glob("*/*.index")
    index.write_bytes(text)
    image = opened(make(), data)
    assert len(image.read(0, MIB)) == 0
    image.close()


def test_a_cut_index_has_lost_what_was_behind(make: Make, folder: Path) -> None:
    data = some()
    first = opened(make(), data)
    fill(first, data, 0, 2 * MIB)
    first.close()
    (index,) = folder.glob("*/*.index")
    os.truncate(index, 64 + 4 * 3)
    image = opened(make(), data)
    assert bytes(image.read(0, 2 * MIB)) == data[: 3 * BLOCK]
    fill(image, data)
    wait_until_whole(image)
    image.close()


def test_what_was_used_longest_ago_goes_first(make: Make, folder: Path) -> None:
    cache = make(limit=SMALLEST)
    images = [some(4 * MIB, seed) for seed in range(4)]
    for number, data in enumerate(images[:3]):
        keep(cache, data)
        os.utime(data_file(folder, data), ns=(number * 10**9, MARK))
    opened(cache, images[0]).close()
    keep(cache, images[3])
    image = opened(cache, some(3 * MIB, seed=9))
    fill(image, some(3 * MIB, seed=9), 0, 2 * MIB)
    image.close()
    names = {hashlib.sha256(data).hexdigest(): number for number, data in enumerate(images)}
    left = {names[file.name] for file in folder.glob("*/*") if file.name in names}
    assert 1 not in left
    assert {0, 3} <= left
    assert used(folder) <= SMALLEST


def test_an_image_larger_than_the_cache_keeps_what_was_read_last(make: Make, folder: Path) -> None:
    data = some(40 * MIB)
    image = opened(make(limit=SMALLEST), data)
    for start in range(0, len(data), SEGMENT):
        fill(image, data, start, start + SEGMENT)
        assert used(folder) <= SMALLEST
        # The beginning is read again and again.
        assert bytes(image.read(0, 100)) == data[:100]
    assert not image.is_whole
    assert bytes(image.read(len(data) - SEGMENT, len(data))) == data[-SEGMENT:]
    assert len(image.read(2 * SEGMENT, 3 * SEGMENT)) == 0
    assert used(folder) > SMALLEST // 2
    image.close()


def test_images_that_are_in_use_elsewhere_stay(make: Make, folder: Path) -> None:
    other = make()
    data = some(12 * MIB)
    keep(other, data)
    theirs = opened(other, data)
    ours = some(30 * MIB, seed=2)
    image = opened(make(limit=SMALLEST), ours)
    for start in range(0, len(ours), SEGMENT):
        fill(image, ours, start, start + SEGMENT)
    assert data_file(folder, data).exists()
    assert bytes(theirs.read(0, 4 * MIB)) == data[: 4 * MIB]
    assert used(folder) <= SMALLEST
    image.close()
    theirs.close()


def test_reading_while_others_give_back_what_is_read_never_gives_other_bytes(make: Make) -> None:
    data = some(24 * MIB)
    caches = [make(limit=SMALLEST), make(limit=SMALLEST)]
    images = [opened(cache, data) for cache in caches]

    def work(seed: int) -> bool:
        chance = random.Random(seed)
        image = images[seed % 2]
        for _ in range(150):
            start = chance.randrange(len(data) // BLOCK) * BLOCK
            if chance.random() < 0.5:
                fill(image, data, start, start + 8 * BLOCK)
            found = image.read_now(start, start + BLOCK) or image.read(start, start + 8 * BLOCK)
            if bytes(found) != data[start : start + len(found)]:
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
    for image in images:
        image.close()


def test_an_image_that_is_read_by_several_mounts_is_right_in_all(make: Make, folder: Path) -> None:
    data = some(8 * MIB)
    caches = [make() for _ in range(3)]

    def work(seed: int) -> bool:
        image = opened(caches[seed % 3], data)
        places = list(range(0, len(data), SEGMENT))
        random.Random(seed).shuffle(places)
        for start in places:
            found = image.read(start, start + SEGMENT)
            if bytes(found) != data[start : start + len(found)]:
                return False
            fill(image, data, start, start + SEGMENT)
        image.close()
        return True

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(work, range(6)))
    image = opened(caches[0], data)
    wait_until_whole(image)
    image.close()


_WRITER = """
import hashlib, random, sys
from pathlib import Path
from glancefs.cache import BlockCache
cache = BlockCache(path=Path(sys.argv[1]), limit=16 << 20)
chance = random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    data = random.Random(chance.randrange(6)).randbytes(5 << 20)
    image = cache.open("sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    for start in range(0, len(data), 1 << 18):
        image.put(start, memoryview(data)[start : start + (1 << 18)])
    image.close()
"""


def test_being_killed_at_any_moment_leaves_nothing_wrong(make: Make, folder: Path) -> None:
    chance = random.Random(6)
    for round_number in range(5):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, folder, str(2 * round_number + number)], stdout=subprocess.PIPE
            )
            for number in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(chance.random() * 0.3)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    cache = make(limit=16 * MIB)
    for seed in range(6):
        data = random.Random(seed).randbytes(5 * MIB)
        image = opened(cache, data)
        for start in range(0, len(data), SEGMENT):
            found = image.read(start, start + SEGMENT)
            assert bytes(found) == data[start : start + len(found)]
        fill(image, data)
        wait_until_whole(image)
        image.close()
    assert used(folder) <= 16 * MIB


@pytest.mark.needs("root")
def test_a_full_disk_only_ends_the_keeping(make: Make, tmp_path: Path, expect_log: Expect) -> None:
    expect_log("takes nothing at present: No space left on device")
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small])
    try:
        data = some(12 * MIB)
        cache = make(path=small / "cache")
        image = opened(cache, data)
        for start in range(0, len(data), SEGMENT):
            fill(image, data, start, start + SEGMENT)
        assert bytes(image.read(0, MIB)) == data[:MIB]
        assert not image.is_complete
        image.close()
        cache.close()
    finally:
        run(["umount", small])


def test_trouble_with_the_disk_is_told_once(make: Make, expect_log: Expect) -> None:
    expect_log("takes nothing at present")
    cache = make()
    for _ in range(3):
        cache.trouble(OSError(errno.EDQUOT, "Disk quota exceeded"))
    data = some()
    image = opened(cache, data)
    fill(image, data)
    assert len(image.read(0, MIB)) == 0
    image.close()


def test_nobody_else_may_look_into_it(make: Make, folder: Path) -> None:
    keep(make(), some())
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.glob("blocks-1/*")] == [0, 0]
    assert stat.S_IMODE((folder / "blocks-1").stat().st_mode) == 0o700
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_what_else_lies_in_the_folder_is_left_alone(make: Make, folder: Path) -> None:
    folder.mkdir()
    (folder / "mine").write_bytes(bytes(1000))
    cache = make(limit=SMALLEST)
    for seed in range(4):
        keep(cache, some(6 * MIB, seed))
    assert (folder / "mine").read_bytes() == bytes(1000)


@pytest.mark.parametrize(
    ("limit", "place", "words"),
    [
        (SMALLEST - 1, "cache", "is too small; it takes 16 MiB at the least"),
        (SMALLEST, "file/cache", "can't be used: Not a directory"),
    ],
)
def test_a_folder_that_can_not_be_one_is_one_clear_line(tmp_path: Path, limit: int, place: str, words: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=re.escape(words)):
        BlockCache(path=tmp_path / place, limit=limit)


@pytest.mark.needs("root")
def test_another_user_s_cache_is_refused(make: Make, folder: Path) -> None:
    make().close()
    os.chown(folder / "blocks-1", 1234, 1234)
    with pytest.raises(ConfigError, match="is another user's"):
        BlockCache(path=folder, limit=SMALLEST)
