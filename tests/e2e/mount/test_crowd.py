# SPDX-License-Identifier: Apache-2.0
"""Many at once, and many of everything: readers and writers, files in a folder, looks at names."""

import hashlib
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from glancefs.model import ImageChanges, ImageStatus, ImageType, NewImage
from tests.support.mounting import LOCAL, Mount, Mounts, eventually, fill_store

MIB = 1 << 20


def all_at_once(works: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the test below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_hundred_readers_and_twenty_writers_at_once(mounted: Mount) -> None:
    data = [os.urandom(3 * MIB + number) for number in range(4)]
    for number, content in enumerate(data):
        (mounted / f"image{number}").write_bytes(content)

    def read(number: int) -> None:
        chance = random.Random(number)
        for _ in range(3):
            which = chance.randrange(4)
            with (mounted / f"image{which}").open("rb") as file:
                start = chance.randrange(len(data[which]))
                file.seek(start)
                assert file.read(MIB) == data[which][start : start + MIB]

    def write(number: int) -> None:
        content = random.Random(1000 + number).randbytes(MIB + number)
        (mounted / f"new{number}").write_bytes(content)
        assert (mounted / f"new{number}").read_bytes() == content

    all_at_once([*(partial(read, number) for number in range(100)), *(partial(write, number) for number in range(20))])
    images = {image.name: image for image in mounted.images()}
    assert len(images) == 24
    for number in range(20):
        digest = hashlib.sha256(random.Random(1000 + number).randbytes(MIB + number)).hexdigest()
        assert images[f"new{number}"].checksum == f"sha256:{digest}"
        assert images[f"new{number}"].status is ImageStatus.AVAILABLE


def test_forty_writers_of_one_path_make_one_whole_image(mounted: Mount) -> None:
    def write(number: int) -> None:
        (mounted / f".{number}").write_bytes(bytes([number]) * 100_000)
        (mounted / f".{number}").rename(mounted / "one")

    all_at_once([partial(write, number) for number in range(40)])
    content = mounted.content("one")
    assert len(content) == 100_000
    assert len(set(content)) == 1
    assert (mounted / "one").read_bytes() == content


def test_the_kernel_forgets_nothing_while_many_files_are_made(mounted: Mount) -> None:
    folder = mounted / "folder"
    folder.mkdir()
    before = mounted.statistics()

    def make(number: int) -> None:
        for turn in range(10):
            (folder / f"{number}-{turn}").write_bytes(b"data")

    all_at_once([partial(make, number) for number in range(16)])
    # The feed has told of all of them by the time it tells of what comes after them.
    with mounted.core() as core:
        image = mounted.image("folder/0-0")
        core.images.update(LOCAL, image.id, ImageChanges(is_public=True))
    eventually(lambda: mounted.statistics()["invalidated"] > before["invalidated"])
    after = mounted.statistics()
    assert after["invalidated"] - before["invalidated"] == 1
    assert after["by_request"].get("forget", 0) == before["by_request"].get("forget", 0)
    assert len(list(folder.iterdir())) == 160


def test_names_in_a_folder_that_was_just_made_are_free_without_a_look_but_those_of_namesakes(mounted: Mount) -> None:
    folder = mounted / "folder"
    folder.mkdir()
    (folder / "one").write_bytes(b"data")
    image = mounted.image("folder/one")
    before = mounted.statistics()["invalidated"]
    with mounted.core() as core:
        core.images.update(LOCAL, image.id, ImageChanges(is_public=True))
    eventually(lambda: mounted.statistics()["invalidated"] > before)
    hops = mounted.statistics()["hops"]
    assert not any((folder / f"free{number}").exists() for number in range(200))
    # Meanwhile the mount looks for changes some times a second.
    assert mounted.statistics()["hops"] - hops < 100
    with mounted.core() as core:
        other = core.images.create(LOCAL, NewImage(name="folder/one", type=ImageType.RAW, size=5))
    eventually((folder / f"one~{other.id}").exists)
    assert (folder / "one").read_bytes() == b"data"
    with mounted.core() as core:
        core.images.create(LOCAL, NewImage(name="folder/other", type=ImageType.RAW, size=5))
    eventually((folder / "other").exists)


def test_a_folder_of_many_images_lists_in_few_looks_at_the_registry(mounts: Mounts, tmp_path: Path) -> None:
    fill_store(tmp_path / "data", 10_000)
    mounted = mounts.mount()
    assert len(mounted.run("ls", "-U").out.splitlines()) == 10_000
    before = mounted.statistics()
    assert len(mounted.run("ls", "-l").out.splitlines()) == 10_001
    after = mounted.statistics()
    # One for each would be ten thousand; while a busy machine lists, the mount looks for changes some times a second.
    assert after["hops"] - before["hops"] < 1000
    assert psutil.Process(mounted.process.pid).memory_info().rss < 150 * MIB


@pytest.mark.soak
def test_a_hundred_thousand_images_and_a_hundred_open_files_fit_into_150_mb(mounts: Mounts, tmp_path: Path) -> None:
    fill_store(tmp_path / "data", 100_000)
    mounted = mounts.mount()
    for number in range(100):
        (mounted / f"open{number}").write_bytes(b"data")
    files = [(mounted / f"open{number}").open("rb") for number in range(100)]
    assert len(mounted.run("ls", "-U").out.splitlines()) == 100_100
    assert len(mounted.run("ls", "-l").out.splitlines()) == 100_101
    assert psutil.Process(mounted.process.pid).memory_info().rss < 150 * MIB
    for file in files:
        file.close()


def test_inodes_are_freed_when_the_kernel_forgets(mounted: Mount) -> None:
    mounted.shell("mkdir d; for i in $(seq 50); do echo $i >d/$i; done")
    for _ in range(5):
        mounted.shell("ls -l d >/dev/null; cat d/* >/dev/null")
    mounted.shell("rm -r d")
    eventually(lambda: mounted.statistics()["inodes"] < 20)
    assert mounted.statistics()["open_files"] == 0


@pytest.mark.parametrize(
    ("before", "after"), [(10, 60), pytest.param(1000, 10_000, marks=pytest.mark.soak)], ids=["short", "a million"]
)
def test_memory_is_flat_over_many_lookups(mounted: Mount, before: int, after: int) -> None:
    for number in range(50):
        (mounted / f"f{number}").write_bytes(b"data")
    script = (
        "import os, sys\n"
        "for turn in range(int(sys.argv[1])):\n"
        "    for number in range(50):\n"
        "        os.stat(f'f{number}')\n"
        "        try: os.stat(f'none{turn % 50}-{number}')\n"
        "        except FileNotFoundError: pass\n"
    )
    daemon = psutil.Process(mounted.process.pid)
    mounted.run("python3", "-c", script, str(before), timeout=1200)
    memory = daemon.memory_info().rss
    mounted.run("python3", "-c", script, str(after), timeout=6000)
    assert daemon.memory_info().rss < memory + 5 * MIB


@pytest.mark.needs("fio")
def test_fio_reads_back_what_it_wrote(mounted: Mount) -> None:
    mounted.run(
        "fio",
        "--name=v",
        "--filename=.work",
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--size=32m",
        "--verify=crc32c",
        "--do_verify=1",
        "--ioengine=psync",
        "--fallocate=none",
    )
    mounted.run("mv", ".work", "done")
    said = mounted.run(
        "fio",
        "--name=v",
        "--filename=done",
        "--rw=randread",
        "--bsrange=4k-64k",
        "--size=32m",
        "--verify=crc32c",
        "--readonly",
        "--verify_only",
        "--ioengine=psync",
        expect=None,
    )
    assert "verify: bad" not in said.out + said.err
    assert mounted.image("done").size == 32 * MIB


STRESSORS = "dentry dir dirdeep dirmany open rename xattr fstat getdent hdd seek chmod utime symlink lockf flock mmap"


@pytest.mark.needs("stress-ng")
@pytest.mark.parametrize(
    ("together", "steps", "seconds"),
    [(17, 50, 5), pytest.param(1, 1_000_000, 4, marks=pytest.mark.soak)],
    ids=["at once", "one by one"],
)
def test_the_mount_survives_stressors_without_an_error(mounts: Mounts, together: int, steps: int, seconds: int) -> None:
    mounted = mounts.mount()
    (mounted / "stress").mkdir()
    names = STRESSORS.split()
    for start in range(0, len(names), together):
        mounted.run(
            "stress-ng",
            *("--temp-path", mounted / "stress", "--timeout", f"{seconds}s", "--quiet"),
            *(
                word
                for name in names[start : start + together]
                for word in (f"--{name}", "1", f"--{name}-ops", str(steps))
            ),
            cwd=mounted.data,
            expect=None,
            timeout=120,
        )
    assert mounted.process.running
    (mounted / "still").write_bytes(b"alive")
    assert mounted.content("still") == b"alive"
    assert "ERROR" not in mounted.log()
    assert "Input/output error" not in mounted.log()
    assert mounted.statistics()["by_error"].get("EIO", 0) == 0
