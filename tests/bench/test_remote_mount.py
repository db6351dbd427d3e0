# SPDX-License-Identifier: Apache-2.0
"""The speed of a mount of a server, beside others that mount the same server by WebDAV."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import pytest

from tests.bench import mount_peers, remote_peers
from tests.bench.conftest import GIBI
from tests.bench.figures import Report
from tests.bench.load import alternate, medians, warm_memory
from tests.support.mounting import LONG_LIFE_SECONDS, Mounts, eventually, fill_store
from tests.support.processes import Argument, Processes, product, run
from tests.support.servers import RunningServer, start_server

pytestmark = pytest.mark.needs("fuse", "root", "rclone", "davfs2")

ROUNDS = 3
RANDOM = 1000
"""So many random reads are measured; of rclone, which takes its time with each, a tenth."""

Mounted = Callable[[], AbstractContextManager[Path]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, gibibyte: Path) -> Path:
    """A data folder with 1,000 small images and one of 1 GiB, and beside it the same file."""
    folder = tmp_path_factory.mktemp("far")
    fill_store(folder / "data", 1000, folder="many/")
    shutil.copy(gibibyte, folder / "image")
    words: list[Argument] = ["add", "--data", folder / "data", "--type", "raw", "--name", "image", gibibyte]
    run([product(), *words], timeout=300)
    return folder / "data"


class Rivals:
    """Everybody's mount of the same server, each fresh."""

    def __init__(self, *, mounts: Mounts, server: RunningServer, folder: Path) -> None:
        mounts.life = LONG_LIFE_SECONDS
        self._mounts = mounts
        self.server = server
        self._folder = folder
        self._numbers = count()

    def ours(self, *options: str) -> AbstractContextManager[Path]:
        """Our own."""
        return remote_peers.ours(self._mounts, self.server, *options)

    def caching(self) -> AbstractContextManager[Path]:
        """Our own with a cache, which stays from one to the next."""
        return self.ours(f"cache={self._folder / 'cache'},cache_size=4G")

    def local(self) -> AbstractContextManager[Path]:
        """Our own of the server's data folder."""
        return mount_peers.ours(self._mounts, self.server.data)

    def rclone(self) -> AbstractContextManager[Path]:
        """Rclone mount."""
        return remote_peers.rclone(self.server, self._folder / "rclone")

    def davfs(self) -> AbstractContextManager[Path]:
        """davfs2, with nothing in its cache."""
        place = self._folder / f"davfs{next(self._numbers)}"
        place.mkdir()
        return remote_peers.davfs(self.server, place)

    def whole(self) -> bool:
        """Whether the cache has the image as a whole."""
        return not list((self._folder / "cache").glob("*/*.index"))


@pytest.fixture
def rivals(mounts: Mounts, processes: Processes, data: Path, tmp_path: Path) -> Rivals:
    """Who is measured, and the one server with two workers that all of them mount."""
    server = start_server(processes, data, "--workers", "2")
    return Rivals(mounts=mounts, server=server, folder=tmp_path)


def on_fresh(mounted: Mounted, work: Callable[[Path], float], *, warm: Path | None = None) -> Callable[[], float]:
    """Do something on a fresh mount; in a folder ``warm``, memory is brought into use first that will be needed."""

    def once() -> float:
        with mounted() as point:
            if warm is not None:
                # Here and on the server, which is the same machine.
                warm_memory(warm, 2 * GIBI)
            return work(point)

    return once


def add(report: Report, key: str, runs: dict[str, list[float]]) -> float:
    """Note one figure beside both peers; gives the least of all medians."""
    middle = medians(runs)
    report.add(f"{key}-rclone", ours=middle["ours"], peer=middle["rclone"], runs=[runs])
    report.add(f"{key}-davfs", ours=middle["ours"], peer=middle["davfs"])
    return min(middle.values())


def test_reading_a_gibibyte(report: Report, rivals: Rivals) -> None:
    def read(point: Path) -> float:
        return remote_peers.read_whole_from_open(point / "image")

    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, read),
        rclone=on_fresh(rivals.rclone, read),
        davfs=on_fresh(rivals.davfs, read),
    )
    assert add(report, "remote-read", runs) > 0


def test_reading_at_random(report: Report, rivals: Rivals) -> None:
    def read(point: Path) -> float:
        return remote_peers.read_from_open(point / "image", count=RANDOM)

    def read_less(point: Path) -> float:
        return remote_peers.read_from_open(point / "image", count=RANDOM // 10)

    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, read),
        rclone=on_fresh(rivals.rclone, read_less),
        davfs=on_fresh(rivals.davfs, read),
    )
    assert add(report, "remote-random", runs) > 0


def test_writing_a_gibibyte(report: Report, rivals: Rivals, tmp_path: Path) -> None:
    def write(point: Path) -> float:
        return remote_peers.write_until_there(point / "new", GIBI, rivals.server)

    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.ours, write, warm=tmp_path),
        rclone=on_fresh(rivals.rclone, write, warm=tmp_path),
        davfs=on_fresh(rivals.davfs, write, warm=tmp_path),
    )
    assert add(report, "remote-write", runs) > 0


def test_listing_a_thousand(report: Report, rivals: Rivals) -> None:
    def look(point: Path) -> float:
        # Not the root, which others list when they mount.
        return mount_peers.lists_per_second(point / "many")

    runs = alternate(
        5,
        ours=on_fresh(rivals.ours, look),
        rclone=on_fresh(rivals.rclone, look),
        davfs=on_fresh(rivals.davfs, look),
    )
    assert add(report, "remote-ls", runs) > 0


def test_reading_a_cached_gibibyte(report: Report, rivals: Rivals, data: Path) -> None:
    def first(point: Path) -> float:
        return mount_peers.read_whole(point / "image")

    def second(point: Path) -> float:
        mount_peers.read_whole(point / "image")
        return mount_peers.read_whole(point / "image")

    with rivals.caching() as point:
        assert mount_peers.read_whole(point / "image") > 0
        eventually(rivals.whole, patience=120)
    runs = alternate(
        ROUNDS,
        ours=on_fresh(rivals.caching, first),
        local=on_fresh(rivals.local, first),
        again=on_fresh(rivals.caching, second),
        below=lambda: mount_peers.read_whole(data.parent / "image"),
    )
    middle = medians(runs)
    report.add("remote-cached", ours=middle["ours"], peer=middle["below"], runs=[runs])
    report.add("remote-cached-local", ours=middle["ours"], peer=middle["local"])
    report.add("remote-cached-again", ours=middle["again"], peer=middle["below"])
