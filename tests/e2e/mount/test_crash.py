# SPDX-License-Identifier: Apache-2.0
"""The promise about crashes, at the mount: what a system call has promised is there, whenever the daemon is killed.

Each round mounts what the last one left, holds everything against the ledgers of all writers so far, lets new writers
work, and kills the daemon at a random moment. A change that was under way may have happened or not, but never by half.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from glancefs.audit import audit
from glancefs.model import ImageStatus
from glancefs.stores.owner import NOTE
from tests.e2e.mount import busy_writer
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.processes import Processes, product, run

pytestmark = pytest.mark.e2e

WRITERS = 4
LONGEST_LIFE = 1.0
"""The longest time in seconds for which a mount works before it is killed."""
LONGEST_GOODBYE = 0.3
"""How long, at most, a mount that was asked to end has for that before it is killed."""


def digest_of_file(path: Path) -> str:
    """Read a file to its end."""
    with path.open("rb") as file:
        digest = sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


@dataclass(slots=True, kw_only=True)
class CrashRun:
    """One data folder and one mount point through many deaths."""

    mounts: Mounts
    processes: Processes
    folder: Path
    chance: random.Random
    may_hold: dict[str, set[str | None]] = field(default_factory=dict)
    """By name: what may be there; exactly one thing where nothing was under way."""
    promises: int = 0
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
            self.read(ledger)

    def read(self, ledger: Path) -> None:
        """Take in what a writer was promised."""
        for line in ledger.read_text().splitlines() if ledger.exists() else ():
            said = json.loads(line)
            for name, digest in said["names"].items():
                before = self.may_hold.setdefault(name, {None})
                self.may_hold[name] = {digest} if said["done"] else before | {digest}
            self.promises += said["done"]

    def verify(self, mount: Mount) -> None:
        """Hold everything that is there against the ledgers, through the mount and behind it."""
        held = {path.name: digest_of_file(path) for path in mount.point.iterdir()}
        wrong = {name: (held.get(name), may) for name, may in self.may_hold.items() if held.get(name) not in may}
        assert not wrong, f"{wrong}\n{self.mounts.made[-2].log()[-3000:]}"
        assert held.keys() <= self.may_hold.keys()
        self.may_hold = {name: {held.get(name)} for name in self.may_hold}
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
            assert name in self.may_hold or path.name.startswith("."), path
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
        assert [path for path in incoming.rglob("*") if path.is_file()] == []
        with mount.core() as core:
            kept = [path for path in (mount.data / "images").rglob("*") if path.is_file() and path.name != NOTE]
            assert len(kept) == len(mount.images())
            assert core.stores


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
    mount.process.send(signal.SIGSTOP)
    waiting = processes.start(["stat", "--file-system", mount.point])
    told = run([product(), "mount", mount.data, mount.point], expect=2)
    assert "does not answer; `glancefs umount --lazy" in told.err
    told = run([product(), "umount", mount.point], expect=1)
    assert told.err == f"glancefs: {mount.point} does not answer. --lazy takes it away all the same.\n"
    run([product(), "umount", "--lazy", mount.point])
    assert not mount.point.is_mount()
    assert waiting.wait() == 1
    mount.process.send(signal.SIGCONT)
    assert mount.process.wait() == 0
    again = mounts.mount(point=mount.point)
    assert (again / "a").read_bytes() == b"data"


def check_deaths(crashes: CrashRun, *, rounds: int) -> None:
    for number in range(rounds):
        crashes.round(number)
    crashes.end()
    assert crashes.promises > rounds
    sys.stdout.write(f"{rounds} deaths, {crashes.promises} promises kept, {crashes.broken_off} files broken off\n")


@pytest.fixture
def crash_run(mounts: Mounts, processes: Processes, tmp_path: Path) -> CrashRun:
    return CrashRun(mounts=mounts, processes=processes, folder=tmp_path, chance=random.Random(3))


def test_what_was_promised_survives_ten_deaths(crash_run: CrashRun) -> None:
    check_deaths(crash_run, rounds=10)


@pytest.mark.soak
def test_what_was_promised_survives_many_deaths(crash_run: CrashRun) -> None:
    check_deaths(crash_run, rounds=120)
