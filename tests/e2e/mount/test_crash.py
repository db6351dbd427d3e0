# SPDX-License-Identifier: Apache-2.0
"""The promise about crashes, at the mount: what a system call has promised is there, whenever the daemon is killed.

Each round mounts what the last one left, holds everything against the ledgers of all writers so far, lets new writers
work, and kills the daemon at a random moment. A change that was under way may have happened or not, but never by half.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from glancefs.audit import audit
from glancefs.model import ImageStatus
from tests.e2e.mount import busy_writer
from tests.e2e.mount.ledgers import Promises, digest_of_file
from tests.e2e.nursery import WRITER, Newborn, Nursery, open_nursery
from tests.support.leaks import mounts_below, unmount
from tests.support.mounting import LIFE_SECONDS, Mount, Mounts, eventually
from tests.support.processes import Processes, product, run

pytestmark = pytest.mark.e2e

WRITERS = 4
LONGEST_LIFE = 1.0
"""The longest time in seconds for which a mount works before it is killed."""
LONGEST_GOODBYE = 0.3
"""How long, at most, a mount that was asked to end has for that before it is killed."""


@dataclass(slots=True, kw_only=True)
class CrashRun:
    """One data folder and one mount point through many deaths."""

    mounts: Mounts
    processes: Processes
    folder: Path
    chance: random.Random
    promises: Promises = field(default_factory=Promises)
    broken_off: int = 0

    def mount(self) -> Mount:
        """Mount over what is left of the last mount."""
        point = self.folder / "mount"
        if not self.mounts.made:
            point.mkdir()
        return self.mounts.mount(point=point)

    def round(self, number: int) -> None:
        """Mount, verify, write, kill."""
        mount = self.mount()
        self.verify(mount)
        ledgers = [self.folder / f"{number}-{writer}.ledger" for writer in range(WRITERS)]
        writers = [
            self.processes.start(
                ["timeout", "60", sys.executable, "-ISB", busy_writer.__file__, mount.point, ledger, ledger.stem]
            )
            for ledger in ledgers
        ]
        eventually(lambda: any(ledger.exists() for ledger in ledgers))
        time.sleep(self.chance.uniform(0, LONGEST_LIFE))
        if self.chance.random() < 0.2:
            mount.process.send(signal.SIGTERM)
            time.sleep(self.chance.uniform(0, LONGEST_GOODBYE))
        mount.process.kill()
        for writer in writers:
            assert writer.wait() == 0, writer.log()
        for ledger in ledgers:
            self.promises.read(ledger)

    def verify(self, mount: Mount) -> None:
        """Hold everything that is there against the ledgers, through the mount and behind it."""
        held = {path.name: digest_of_file(path) for path in mount.point.iterdir()}
        self.promises.hold_against(held, told=self.mounts.made[-2].log()[-3000:] if self.mounts.made[1:] else "")
        images = {image.name: image for image in mount.images()}
        assert {image.status for image in images.values()} <= {ImageStatus.AVAILABLE}
        assert {name: image.checksum for name, image in images.items()} == held
        with mount.core() as core:
            assert not list(audit(registry=core.registry, stores=core.stores, quick=False, progress=None))
        self.look_at_what_is_pending(mount)

    def look_at_what_is_pending(self, mount: Mount) -> None:
        """Make sure that what was broken off holds what its writer wrote first, and remove every other one."""
        for path in sorted((mount / ".glance" / "pending").iterdir()):
            self.broken_off += 1
            name = path.name.partition("~")[0].removeprefix(".").removesuffix(".tmp")
            assert name in self.promises.may_hold or path.name.startswith((".", "recovered-")), path
            path.read_bytes()
            if self.chance.random() < 0.5:
                path.unlink()

    def end(self) -> None:
        """Take away what is pending, end the mount, and find nothing left of it."""
        mount = self.mount()
        self.verify(mount)
        mount.shell("find .glance/pending -type f -delete")
        assert "WARNING" not in mount.log()
        mount.end()
        incoming = mount.data / "images" / "incoming"
        # One that died while it began to write has left a lock, which sweeps remove after a minute.
        left = [path for path in incoming.rglob("*") if path.is_file() and not path.parent.name.startswith(".")]
        assert left == []
        with mount.core() as core:
            kept = list((mount.data / "images").glob("??/*"))
            assert len(kept) == len(mount.images())
            assert core.stores


@pytest.mark.promise(
    "A small file whose last close was being answered when its mount was killed may be in `.glance/pending` as "
    "`recovered-KEY`: its name is lost, not its data."
)
def test_a_death_in_the_last_moment_costs_a_file_its_name(mounts: Mounts) -> None:
    mounted = mounts.mount()
    (mounted / ".a").write_bytes(b"data")
    mounted.kill()
    # What such a death leaves: the data alone.
    (known,) = mounted.data.glob("images/incoming/staged/*/*.json")
    known.unlink()
    again = mounts.mount()
    assert (again / f".glance/pending/recovered-{known.stem}").read_bytes() == b"data"
    assert "WARNING" not in again.log()


def test_a_mount_whose_root_the_kernel_remembers_is_known_for_dead(mounts: Mounts, tmp_path: Path) -> None:
    mount = mounts.mount()
    mount.point.stat()
    mount.process.kill()
    # Nobody was asked for this.
    mount.point.stat()
    again = mounts.mount(point=mount.point)
    assert list(again.point.iterdir()) == []
    again.end()
    assert not mount.point.is_mount()


def test_a_mount_that_does_not_answer_can_be_taken_away(mounts: Mounts, processes: Processes) -> None:
    mount = mounts.mount()
    (mount / "a").write_bytes(b"data")
    mount.process.freeze()
    waiting = processes.start(["stat", "--file-system", mount.point])
    told = run([product(), "mount", mount.data, mount.point], expect=2)
    assert "does not answer; `glancefs umount --lazy" in told.err
    told = run([product(), "umount", mount.point], expect=1)
    assert told.err == f"glancefs: {mount.point} does not answer. --lazy takes it away all the same.\n"
    run([product(), "umount", "--lazy", mount.point])
    assert not mount.point.is_mount()
    assert waiting.wait() == 1
    mount.process.thaw()
    assert mount.process.wait() == 0
    again = mounts.mount(point=mount.point)
    assert (again / "a").read_bytes() == b"data"


def check_deaths(crashes: CrashRun, *, rounds: int) -> None:
    for number in range(rounds):
        crashes.round(number)
    crashes.end()
    assert crashes.promises.kept
    sys.stdout.write(f"{rounds} deaths, {crashes.promises.kept} promises kept, {crashes.broken_off} files broken off\n")


@pytest.fixture
def crash_run(mounts: Mounts, processes: Processes, tmp_path: Path) -> CrashRun:
    return CrashRun(mounts=mounts, processes=processes, folder=tmp_path, chance=random.Random(3))


def test_what_was_promised_survives_deaths_one_by_one(crash_run: CrashRun) -> None:
    check_deaths(crash_run, rounds=3)


@dataclass(slots=True, kw_only=True)
class Lane:
    """One of several mount points of a data folder, each with a writer, whose mounts die often and soon."""

    nursery: Nursery
    data: Path
    point: Path
    chance: random.Random
    promises: Promises = field(default_factory=Promises)
    last: Newborn | None = None
    broken_off: int = 0

    def live(self, *, deaths: int) -> None:
        """Mount, verify what the mounts before were to keep, write, die; so many times."""
        self.point.mkdir()
        for number in range(deaths):
            mount = self.mount()
            self.verify()
            ledger = self.point.with_name(f"{self.point.name}-{number}.ledger")
            writer = self.nursery.bear(WRITER, str(self.point), str(ledger), f"{self.point.name}-{number}")
            lines = self.chance.randint(1, MOST_LINES)
            while writer.is_alive and not (ledger.exists() and ledger.read_bytes().count(b"\n") >= lines):
                time.sleep(0.002)
            time.sleep(self.chance.uniform(0, LAST_MOMENT))
            mount.kill()
            writer.wait()
            self.promises.read(ledger)

    def mount(self) -> Newborn:
        """Mount over what is left of the last mount."""
        self.last = self.nursery.bear("mount", str(self.data), str(self.point), "--foreground")
        self.last.wait_for(re.escape(f"is at {self.point}"))
        return self.last

    def verify(self) -> None:
        """Hold what this lane's writers made against their ledgers, and remove what they had to break off."""
        mine = f"{self.point.name}-"
        held = {path.name: digest_of_file(path) for path in self.point.iterdir() if path.name.startswith(mine)}
        self.promises.hold_against(held, told=mine)
        for path in (self.point / ".glance" / "pending").iterdir():
            # Another lane's mount may find it too, and be faster.
            with contextlib.suppress(FileNotFoundError):
                path.read_bytes()
                path.unlink()
                self.broken_off += 1


LANES = 4
MOST_LINES = 6
"""How many lines a ledger has, at the most, when its mount is about to be killed."""
LAST_MOMENT = 0.05
"""The longest time in seconds until it is."""


def test_what_was_promised_survives_a_hundred_deaths(mounts: Mounts, processes: Processes, tmp_path: Path) -> None:
    seen = CrashRun(mounts=mounts, processes=processes, folder=tmp_path, chance=random.Random(7))
    data = tmp_path / "data"
    data.mkdir()
    with open_nursery(tmp_path / "nursery") as nursery, ThreadPoolExecutor(LANES) as pool:
        lanes = [
            Lane(nursery=nursery, data=data, point=tmp_path / f"lane{number}", chance=random.Random(number))
            for number in range(LANES)
        ]
        dog = threading.Timer(LIFE_SECONDS, nursery.kill)
        dog.start()
        try:
            for ended in [pool.submit(lane.live, deaths=100 // LANES) for lane in lanes]:
                ended.result()
        finally:
            dog.cancel()
            for lane in lanes:
                for point in mounts_below(lane.point):
                    unmount(point)
    for lane in lanes:
        seen.promises.may_hold |= lane.promises.may_hold
    seen.end()
    kept, broken_off = sum(lane.promises.kept for lane in lanes), sum(lane.broken_off for lane in lanes)
    assert kept > 10
    sys.stdout.write(f"100 deaths, {kept} promises kept, {broken_off} files broken off\n")


@pytest.mark.soak
def test_what_was_promised_survives_many_deaths(crash_run: CrashRun) -> None:
    check_deaths(crash_run, rounds=120)
