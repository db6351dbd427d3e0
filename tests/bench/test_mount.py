# SPDX-License-Identifier: Apache-2.0
"""The speed of the mount, beside other file systems in user space and the one below."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.bench import mount_peers as peers
from tests.bench.figures import Report
from tests.bench.load import alternate, medians, warm_memory
from tests.bench.mount_peers import MIB
from tests.support.mounting import LONG_LIFE_SECONDS, Mounts, fill_store
from tests.support.mounts import mounted as file_system
from tests.support.processes import product, run

pytestmark = pytest.mark.needs("fuse", "root", "bindfs", "rclone")

ROUNDS = 3
SIZE = 1 << 30

Mounted = Callable[[], AbstractContextManager[Path]]


@pytest.fixture(scope="session")
def passthrough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of libfuse, compiled."""
    return peers.build_passthrough(tmp_path_factory.mktemp("passthrough"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, gibibyte: Path) -> Path:
    """A data folder, and beside it a plain folder, each with the same file of 1 GiB."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "plain").mkdir()
    shutil.copy(gibibyte, folder / "plain" / "image")
    run([product(), "add", "--data", folder / "data", "--type", "raw", "--name", "image", gibibyte], timeout=300)
    return folder


class Rivals:
    """Everybody's mount of the same file, each fresh: nothing of it is in the kernel's cache of the mount."""

    def __init__(self, *, mounts: Mounts, store: Path, passthrough: Path, folder: Path) -> None:
        mounts.life = LONG_LIFE_SECONDS
        self._mounts = mounts
        self._store = store
        self._passthrough = passthrough
        self._folder = folder

    @property
    def plain(self) -> Path:
        """The plain folder, on the file system below."""
        return self._store / "plain"

    def ours(self) -> AbstractContextManager[Path]:
        """Our own."""
        return peers.ours(self._mounts, self._store / "data")

    def bindfs(self) -> AbstractContextManager[Path]:
        """bindfs, in C on libfuse's high level."""
        point = self._folder / "bindfs"
        return peers.mounted(["bindfs", "-f", self.plain, point], point)

    def passthrough(self) -> AbstractContextManager[Path]:
        """The example passthrough_ll, in C on the low level of libfuse."""
        point = self._folder / "passthrough"
        return peers.mounted([self._passthrough, "-f", "-o", f"source={self.plain}", point], point)

    def rclone(self) -> AbstractContextManager[Path]:
        """rclone, in Go, of a local folder."""
        point = self._folder / "rclone"
        return peers.mounted(["rclone", "mount", f":local:{self.plain}", point, "--vfs-cache-mode", "writes"], point)


@pytest.fixture
def rivals(mounts: Mounts, store: Path, passthrough: Path, tmp_path: Path) -> Rivals:
    """Who is measured."""
    return Rivals(mounts=mounts, store=store, passthrough=passthrough, folder=tmp_path)


def on_fresh(mounted: Mounted, work: Callable[[Path], float], *, warm: Path | None = None) -> Callable[[], float]:
    """Do something on a fresh mount; for bulk data with memory that was in use a moment ago, by a file of a folder."""

    def once() -> float:
        with mounted() as point:
            if warm is not None:
                warm_memory(warm, SIZE)
            return work(point)

    return once


def test_reading_a_gibibyte(report: Report, rivals: Rivals) -> None:
    def first(point: Path) -> float:
        return peers.read_whole(point / "image")

    def second(point: Path) -> float:
        peers.read_whole(point / "image")
        return peers.read_whole(point / "image")

    peers.read_whole(rivals.plain / "image")
    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, first, warm=rivals.plain),
        bindfs=on_fresh(rivals.bindfs, first, warm=rivals.plain),
        passthrough=on_fresh(rivals.passthrough, first, warm=rivals.plain),
        rclone=on_fresh(rivals.rclone, first, warm=rivals.plain),
        again=on_fresh(rivals.ours, second, warm=rivals.plain),
        below=lambda: peers.read_whole(rivals.plain / "image"),
    )
    middle = medians(runs)
    assert min(middle.values()) > 0
    report.add("mount-read", ours=middle["ours"], peer=middle["bindfs"], runs=[runs])
    report.add("mount-read-c", ours=middle["ours"], peer=middle["passthrough"])
    report.add("mount-read-rclone", ours=middle["ours"], peer=middle["rclone"])
    report.add("mount-reread", ours=middle["again"], peer=middle["below"])


def test_reading_at_random(report: Report, rivals: Rivals) -> None:
    count = 30_000

    def first(point: Path) -> float:
        return peers.read_at_random(point / "image", count=count)

    def second(point: Path) -> float:
        peers.read_at_random(point / "image", count=count)
        return peers.read_at_random(point / "image", count=count)

    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, first),
        passthrough=on_fresh(rivals.passthrough, first),
        again=on_fresh(rivals.ours, second),
        below=lambda: peers.read_at_random(rivals.plain / "image", count=count),
    )
    middle = medians(runs)
    assert min(middle.values()) > 0
    report.add("mount-random", ours=middle["ours"], peer=middle["passthrough"], runs=[runs])
    report.add("mount-random-again", ours=middle["again"], peer=middle["below"])


def test_writing_a_gibibyte(report: Report, rivals: Rivals, gibibyte: Path, tmp_path: Path) -> None:
    def write(point: Path) -> float:
        return peers.write_whole(point / "new", SIZE)

    def copy(point: Path) -> float:
        start = time.perf_counter()
        run(["cp", gibibyte, point / "copy"], timeout=300)
        speed = SIZE / MIB / (time.perf_counter() - start)
        (point / "copy").unlink()
        return speed

    def copy_and_hash() -> float:
        warm_memory(tmp_path, SIZE)
        start = time.perf_counter()
        run(["sh", "-c", 'cp "$1" "$2" && sha256sum "$2"', "sh", gibibyte, tmp_path / "copy"], timeout=300)
        speed = SIZE / MIB / (time.perf_counter() - start)
        (tmp_path / "copy").unlink()
        return speed

    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, write, warm=tmp_path),
        passthrough=on_fresh(rivals.passthrough, write, warm=tmp_path),
        rclone=on_fresh(rivals.rclone, write, warm=tmp_path),
        copy=on_fresh(rivals.ours, copy, warm=tmp_path),
        below=copy_and_hash,
    )
    middle = medians(runs)
    assert min(middle.values()) > 0
    report.add("mount-write", ours=middle["ours"], peer=middle["passthrough"], runs=[runs])
    report.add("mount-write-rclone", ours=middle["ours"], peer=middle["rclone"])
    report.add("mount-cp", ours=middle["copy"], peer=middle["below"])


def test_small_files(report: Report, mounts: Mounts, tmp_path: Path) -> None:
    # What was removed before from the machine's own file system may make new files slow: ext4 without a journal passes
    # by every inode that was freed in the last minutes.
    with file_system(tmp_path, kind="ext4", size=8 << 30) as disk:
        mounted = mounts.mount(data=disk / "data")
        rounds = iter(range(100))

        def create(folder: Path, *, are_synced: bool = False) -> float:
            place = folder / f"round{next(rounds)}"
            place.mkdir(parents=True)
            return peers.create_many(place, clients=16, seconds=5, are_synced=are_synced)

        try:
            runs = alternate(
                ROUNDS,
                ours=lambda: create(mounted.point),
                below=lambda: create(disk / "plain", are_synced=True),
            )
        finally:
            mounted.end()
    middle = medians(runs)
    assert min(middle.values()) > 0
    report.add("mount-create", ours=middle["ours"], peer=middle["below"], runs=[runs])


def test_listing_ten_thousand(report: Report, mounts: Mounts, tmp_path: Path) -> None:
    fill_store(tmp_path / "data", 10_000)
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(10_000):
        (plain / f"image-{number:06}.qcow2").write_bytes(b"data")
    runs = alternate(
        5,
        ours=on_fresh(lambda: peers.ours(mounts, tmp_path / "data"), peers.lists_per_second),
        below=lambda: peers.lists_per_second(plain),
    )
    middle = medians(runs)
    assert min(middle.values()) > 0
    report.add("mount-ls", ours=middle["ours"], peer=middle["below"], runs=[runs])


def test_attributes_beside_readers(report: Report, rivals: Rivals) -> None:
    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, lambda point: peers.slowest_stat(point / "image", [point / "image"] * 8, seconds=5)),
    )
    assert min(runs["ours"]) > 0
    report.add("mount-stat", ours=medians(runs)["ours"], runs=[runs])


def test_memory_with_a_hundred_thousand_images(report: Report, mounts: Mounts, tmp_path: Path) -> None:
    fill_store(tmp_path / "data", 100_000)
    mounts.life = LONG_LIFE_SECONDS
    mounted = mounts.mount()
    files = [(mounted / f"image-{number:06}.qcow2").open("rb") for number in range(1, 101)]
    assert len(mounted.run("ls", "-l").out.splitlines()) == 100_001
    report.add("mount-memory", ours=peers.resident(mounted.process.pid))
    for file in files:
        file.close()
