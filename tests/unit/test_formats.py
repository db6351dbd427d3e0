# SPDX-License-Identifier: Apache-2.0
"""The type of an image by its first bytes, with files that real tools make.

Threading: none.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.formats import SNIFF_SIZE, detect_type
from glancefs.model import ImageType
from tests.support.processes import run

CPIO = b"070701" + b"0" * 104 + b"TRAILER!!!" + bytes(400)


def head_of(file: Path) -> bytes:
    with file.open("rb") as data:
        return data.read(SNIFF_SIZE)


def at(offset: int, mark: bytes) -> bytes:
    return bytes(offset) + mark + bytes(600)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.needs("netboot")
def test_the_installers_kernel_and_ramdisk(netboot_kernel: Path, netboot_initrd: Path) -> None:
    assert detect_type(head_of(netboot_kernel)) is ImageType.KERNEL
    assert detect_type(head_of(netboot_initrd)) is ImageType.RAMDISK


@pytest.mark.needs("netboot", "xorriso")
def test_an_iso_is_a_machine(netboot_iso: Path) -> None:
    assert detect_type(head_of(netboot_iso)) is ImageType.MACHINE


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"])
def test_disks_that_qemu_img_makes_are_machines(tmp_path: Path, format_: str) -> None:
    disk = tmp_path / "disk"
    run(["qemu-img", "create", "-q", "-f", format_, disk, "16M"])
    assert detect_type(head_of(disk)) is ImageType.MACHINE


@pytest.mark.parametrize("compressor", [["zstd", "-q", "-c"], ["lz4", "-q", "-c"], ["lz4", "-q", "-l", "-c"]])
def test_ramdisks_that_other_tools_compress(tmp_path: Path, compressor: list[str]) -> None:
    archive = tmp_path / "initrd"
    archive.write_bytes(CPIO * 20)
    packed = run([tool(compressor[0]), *compressor[1:], archive]).stdout
    assert detect_type(packed) is ImageType.RAMDISK


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_ramdisks_that_python_compresses(compress: type) -> None:
    assert detect_type(compress(CPIO * 1000)[:SNIFF_SIZE]) is ImageType.RAMDISK
    assert detect_type(compress(bytes(100_000))) is ImageType.RAW


def test_lz4_without_a_cpio_inside_is_raw(tmp_path: Path) -> None:
    plain = tmp_path / "disk"
    plain.write_bytes(b"some other data than an archive" * 100)
    assert detect_type(run([tool("lz4"), "-q", "-c", plain]).stdout) is ImageType.RAW


@pytest.mark.parametrize(
    ("head", "type_"),
    [
        (CPIO, ImageType.RAMDISK),
        (b"\xc7\x71" + bytes(100), ImageType.RAMDISK),
        (at(0x38, b"ARM\x64"), ImageType.KERNEL),
        (gzip.compress(at(0x38, b"ARM\x64"), mtime=0), ImageType.KERNEL),
        (at(0x24, b"\x18\x28\x6f\x01"), ImageType.KERNEL),
        (at(0x38, b"RSC\x05"), ImageType.KERNEL),
        (b"MZ\0\0zimg" + bytes(100), ImageType.KERNEL),
        (b"MZ" + bytes(600) + b".linux\0\0", ImageType.KERNEL),
        (b"\x27\x05\x19\x56" + bytes(26) + b"\2" + bytes(40), ImageType.KERNEL),
        (b"\x27\x05\x19\x56" + bytes(26) + b"\3" + bytes(40), ImageType.RAMDISK),
        (at(512, b"EFI PART"), ImageType.MACHINE),
        (at(4096, b"EFI PART"), ImageType.MACHINE),
        (gzip.compress(at(512, b"EFI PART"), mtime=0), ImageType.RAW),
        (b"# Disk DescriptorFile\nversion=1", ImageType.MACHINE),
        (b"", ImageType.RAW),
        (b"\x1f\x8b", ImageType.RAW),
        (b"\x04\x22\x4d\x18", ImageType.RAW),
        (b"just text", ImageType.RAW),
    ],
)
def test_marks(head: bytes, type_: ImageType) -> None:
    assert detect_type(head) is type_


def boot_sector(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa" + bytes(512)


def test_a_partition_table_is_a_machine_and_a_boot_sector_alone_is_not() -> None:
    partition = b"\x80" + bytes(3) + b"\x83" + bytes(3) + struct.pack("<II", 2048, 204_800)
    assert detect_type(boot_sector(partition)) is ImageType.MACHINE
    assert detect_type(boot_sector()) is ImageType.RAW
    assert detect_type(boot_sector(b"boot code, no table")) is ImageType.RAW


def test_file_systems_without_a_table_are_raw(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2 << 20))
    run([tool("mkfs.ext4"), "-q", "-F", disk])
    assert detect_type(head_of(disk)) is ImageType.RAW


@given(st.binary(max_size=700), st.sampled_from([b"", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x04\x22\x4d\x18", b"BZh9"]))
def test_every_beginning_has_a_type(head: bytes, mark: bytes) -> None:
    assert detect_type(mark + head) in ImageType
