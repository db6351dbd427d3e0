# SPDX-License-Identifier: Apache-2.0
"""rsync, both ways: what it transfers, what it keeps, and what a broken-off one leaves."""

import os
import time
from pathlib import Path

import pytest

from glancefs.model import ImageStatus, ImageType
from tests.support.mounting import Mount, Mounts, eventually

pytestmark = pytest.mark.needs("rsync")

HALF_WAY = "until [ -n \"$(find . -maxdepth 1 -name '.big.raw.*' -size +200k)\" ]; do sleep 0.05; done"
"""Waits in a script until rsync has written some of it."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of files with times of their own."""
    top = tmp_path / "tree"
    (top / "sub" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.raw", "sub/b.raw", "sub/deep/c.raw", "sub/deep/empty.d")):
        (top / name).write_bytes(os.urandom(150_000 + number))
        os.utime(top / name, ns=(0, 1_600_000_000_123_456_789 + number))
    return top


def transferred(said: str) -> int:
    """How many files an `rsync --stats` says it sent."""
    (line,) = [line for line in said.splitlines() if line.startswith("Number of regular files transferred")]
    return int(line.split(":")[1].replace(",", ""))


def names(mount: Mount) -> list[str]:
    return sorted(image.name for image in mount.images())


EXPECTED = ["a.raw", "sub/b.raw", "sub/deep/c.raw", "sub/deep/empty.d"]


@pytest.mark.parametrize("flags", ["-a", "-aX", "-aH", "-rt", "-av --checksum", "-a --inplace", "-a --partial", "-aS"])
def test_rsync_brings_a_tree(mounted: Mount, tree: Path, flags: str) -> None:
    mounted.run("rsync", *flags.split(), f"{tree}/", "./")
    eventually(lambda: names(mounted) == EXPECTED)
    eventually(lambda: all(image.status is ImageStatus.AVAILABLE for image in mounted.images()))
    assert mounted.run("diff", "-r", tree, ".").out == ""


@pytest.mark.promise("Times that are set are kept: a second `rsync -a` transfers nothing.")
def test_a_second_rsync_transfers_nothing(mounts: Mounts, tree: Path) -> None:
    mounted = mounts.mount()
    mounted.run("rsync", "-a", f"{tree}/", "./")
    again = mounted.run("rsync", "-a", "--stats", f"{tree}/", "./")
    assert transferred(again.out) == 0
    mounted.end()
    remounted = mounts.mount()
    assert transferred(remounted.run("rsync", "-a", "--stats", f"{tree}/", "./").out) == 0


def test_rsync_transfers_what_has_changed_and_deletes_what_is_gone(mounted: Mount, tree: Path) -> None:
    mounted.run("rsync", "-a", f"{tree}/", "./")
    before = mounted.image("sub/b.raw")
    (tree / "a.raw").unlink()
    (tree / "sub/b.raw").write_bytes(b"changed")
    said = mounted.run("rsync", "-a", "--delete", "--stats", f"{tree}/", "./")
    assert transferred(said.out) == 1
    assert names(mounted) == EXPECTED[1:]
    assert mounted.content("sub/b.raw") == b"changed"
    assert mounted.image("sub/b.raw").id != before.id


def test_rsync_by_checksum_finds_nothing_to_do(mounted: Mount, tree: Path) -> None:
    mounted.run("rsync", "-a", f"{tree}/", "./")
    assert transferred(mounted.run("rsync", "-a", "--checksum", "--stats", f"{tree}/", "./").out) == 0


@pytest.mark.promise(
    "`rsync -aX` and `cp -a` to a disk and back into an empty store restore ids, types, visibility and properties."
)
def test_a_backup_on_a_disk_restores_images_with_their_metadata(mounts: Mounts, tree: Path, tmp_path: Path) -> None:
    mounted = mounts.mount()
    mounted.run("rsync", "-a", f"{tree}/", "./")
    for name, value in (("type", "machine"), ("is_public", "true"), ("property.distro", "debian")):
        mounted.run("setfattr", "-n", f"user.glance.{name}", "-v", value, "sub/b.raw")
    before = {image.name: image for image in mounted.images()}
    backup = tmp_path / "backup"
    mounted.run("rsync", "-aX", "./", f"{backup}/")
    other = mounts.mount(data=tmp_path / "other")
    said = other.run("rsync", "-aX", f"{backup}/", "./")
    assert said.err == ""
    after = {image.name: image for image in other.images()}
    assert {name: image.id for name, image in after.items()} == {name: image.id for name, image in before.items()}
    assert all(after[name].checksum == image.checksum for name, image in before.items())
    restored = after["sub/b.raw"]
    assert (restored.type, restored.is_public, restored.properties["distro"]) == (ImageType.MACHINE, True, "debian")
    assert transferred(other.run("rsync", "-aX", "--stats", f"{backup}/", "./").out) == 0


def test_a_copy_with_attributes_restores_as_well(mounts: Mounts, tmp_path: Path) -> None:
    mounted = mounts.mount()
    (mounted / "a").write_bytes(b"data")
    mounted.run("setfattr", "-n", "user.glance.property.distro", "-v", "debian", "a")
    before = mounted.image("a")
    mounted.run("cp", "-a", "a", tmp_path / "a")
    other = mounts.mount(data=tmp_path / "other")
    assert other.run("cp", "-a", tmp_path / "a", "a").err == ""
    after = other.image("a")
    assert (after.id, after.properties["distro"], after.checksum) == (before.id, "debian", before.checksum)


@pytest.mark.promise("What `rsync -a --partial` could not finish is no image, and the next one goes on with it.")
def test_a_half_done_rsync_shows_nothing_and_goes_on_afterwards(mounted: Mount, tmp_path: Path) -> None:
    source = tmp_path / "big.raw"
    source.write_bytes(os.urandom(8 << 20))
    command = f'rsync -a --partial --bwlimit=2000 "{source}" ./ & pid=$!; {HALF_WAY}; kill $pid; wait'
    mounted.shell(command, expect=None)
    assert mounted.images() == []
    assert 0 < (mounted / "big.raw").stat().st_size < 8 << 20
    mounted.run("rsync", "-a", "--partial", source, "./")
    assert mounted.content("big.raw") == source.read_bytes()


def test_rsync_killed_outright_leaves_no_image(mounted: Mount, tmp_path: Path) -> None:
    source = tmp_path / "big.raw"
    source.write_bytes(os.urandom(8 << 20))
    mounted.shell(
        f'rsync --bwlimit=2000 "{source}" ./ & pid=$!; {HALF_WAY}; pkill -KILL -P $pid; kill -KILL $pid; wait',
        expect=None,
    )
    # Nothing comes of it later, either.
    time.sleep(0.5)
    assert mounted.images() == []
    mounted.run("rsync", "-a", source, "./")
    assert mounted.content("big.raw") == source.read_bytes()
    assert mounted.shell("rm -rf .glance/pending/* .glance/pending/.[!.]*; ls -A .glance/pending").out == ""
