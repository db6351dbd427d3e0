# SPDX-License-Identifier: Apache-2.0
"""qemu-img on images in the mount, and into it: it creates, closes, reopens and writes out of order."""

import json
import os
from pathlib import Path

import pytest

from glancefs.model import ImageStatus, ImageType
from tests.support.mounting import Mount, eventually

pytestmark = pytest.mark.needs("qemu-img")

PROMISE = (
    "A file that is opened for reading and writing becomes an image when the program that opened it has ended, "
    "or 5 seconds after it was last closed."
)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 24 MiB with data here and there."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(24 << 20)
        for place in (0, 3 << 20, (7 << 20) + 512, (23 << 20)):
            file.seek(place)
            file.write(os.urandom(300_000))
    return path


def is_available(mounted: Mount, name: str) -> bool:
    return any(image.name == name and image.status is ImageStatus.AVAILABLE for image in mounted.images())


@pytest.mark.promise(PROMISE)
@pytest.mark.parametrize("flags", ["-O qcow2", "-O raw", "-O raw -S 4k", "-O qcow2 -c", "-O vmdk", "-O raw -n"])
def test_qemu_img_converts_into_the_mount(mounted: Mount, disk: Path, flags: str) -> None:
    if "-n" in flags:
        mounted.run("truncate", "-s", str(24 << 20), "out")
    mounted.run("qemu-img", "convert", "-f", "raw", *flags.split(), disk, "out")
    eventually(lambda: is_available(mounted, "out"))
    kind = flags.split()[1]
    said = mounted.run("qemu-img", "compare", "-f", "raw", "-F", kind, disk, "out")
    assert "identical" in said.out
    if kind == "qcow2":
        assert mounted.image("out").type is ImageType.MACHINE
        assert "No errors" in mounted.run("qemu-img", "check", "out").out


def test_qemu_img_reads_an_image_of_the_mount(mounted: Mount, disk: Path, tmp_path: Path) -> None:
    mounted.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "disk.qcow2")
    mounted.run("cp", tmp_path / "disk.qcow2", "disk.qcow2")
    info = json.loads(mounted.run("qemu-img", "info", "--output=json", "disk.qcow2").out)
    assert (info["format"], info["virtual-size"]) == ("qcow2", 24 << 20)
    assert "data" in mounted.run("qemu-img", "map", "--output=json", "disk.qcow2").out
    mounted.run("qemu-img", "convert", "-O", "raw", "disk.qcow2", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == disk.read_bytes()


def test_qemu_img_creates_an_image(mounted: Mount) -> None:
    mounted.run("qemu-img", "create", "-q", "-f", "qcow2", "new.qcow2", "1G")
    eventually(lambda: is_available(mounted, "new.qcow2"))
    info = json.loads(mounted.run("qemu-img", "info", "--output=json", "new.qcow2").out)
    assert info["virtual-size"] == 1 << 30


def test_what_settles_is_published_when_the_mount_ends(mounted: Mount) -> None:
    mounted.run("python3", "-c", "f = open('a', 'w+b'); f.write(b'data'); f.close()")
    with (mounted / "b").open("w+b") as file:
        file.write(b"data")
    mounted.end()
    assert sorted(image.name for image in mounted.images()) == ["a", "b"]
    assert all(image.status is ImageStatus.AVAILABLE for image in mounted.images())


def test_a_program_that_lives_on_is_waited_for_5_seconds(mounted: Mount) -> None:
    with (mounted / "a").open("w+b") as file:
        file.write(b"data")
    assert mounted.images() == []
    with (mounted / "a").open("r+b") as file:
        file.seek(4)
        file.write(b" and more")
    eventually(lambda: is_available(mounted, "a"))
    assert mounted.content("a") == b"data and more"
