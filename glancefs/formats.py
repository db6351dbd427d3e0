# SPDX-License-Identifier: Apache-2.0
"""What an image is for, by its first bytes.

Answers for the `ImageType` of data of which nobody said the type: a bootable Linux kernel, a ramdisk (a cpio archive,
compressed or not), a machine's disk (a disk format, an ISO 9660 or a partition table), else raw. Reads no file.

Sources: the kernel's Documentation/arch/{x86/boot,arm64/booting,riscv/boot-image-header} and cpio(5); QEMU's
docs/interop/qcow2; the VMDK, VDI and VHDX specifications; ECMA-119, section 8.1; the UEFI specification, section 5.

Threading: pure functions.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from glancefs.model import ImageType

SNIFF_SIZE: Final = 65_536
"""How many of the first bytes tell everything that can be told."""

_SECTOR: Final = 512
_UNPACKED: Final = 4_096
"""How much of compressed data is unpacked to see what is inside."""

_CPIO: Final = (b"070701", b"070702", b"070707", b"\xc7\x71", b"\x71\xc7")
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LZ4: Final = b"\x04\x22\x4d\x18"
_LZ4_LEGACY: Final = b"\x02\x21\x4c\x18"
_LZ4_LONG: Final = 15
_FULL: Final = 0xFF
_UIMAGE: Final = b"\x27\x05\x19\x56"
_UIMAGE_TYPE: Final = 30
_UIMAGE_TYPES: Final = {b"\x02": ImageType.KERNEL, b"\x03": ImageType.RAMDISK}

_KERNELS: Final[tuple[tuple[int, bytes], ...]] = (
    (0x202, b"HdrS"),  # x86: the boot protocol's header
    (0x38, b"ARM\x64"),  # arm64: Image
    (0x24, b"\x18\x28\x6f\x01"),  # arm: zImage
    (0x38, b"RSC\x05"),  # riscv: Image
    (0x04, b"zimg"),  # EFI: a compressed image that unpacks itself
)
_DISKS: Final[tuple[tuple[int, bytes], ...]] = (
    (0, b"QFI\xfb"),
    (0, b"QED\0"),
    (0, b"KDMV"),
    (0, b"COWD"),
    (0, b"# Disk DescriptorFile"),
    (0, b"vhdxfile"),
    (0, b"conectix"),
    (0x40, b"\x7f\x10\xda\xbe"),  # VDI
    (0x8001, b"CD001"),  # ISO 9660
    (512, b"EFI PART"),  # GPT on sectors of 512 bytes
    (4096, b"EFI PART"),  # GPT on sectors of 4 KiB
)


def detect_type(head: bytes) -> ImageType:
    """Give the type of an image that begins with these bytes; give it `SNIFF_SIZE` of them, or all there are.

    A zstd stream counts as a ramdisk, whatever is inside: unpacking one takes more than Python brings along.
    """
    kind = _plain_type(head)
    if kind is ImageType.RAW and (inside := _unpacked(head)):
        kind = _plain_type(inside)
        # A compressed disk boots nothing until somebody unpacks it.
        kind = kind if kind in {ImageType.KERNEL, ImageType.RAMDISK} else ImageType.RAW
    return kind


def _plain_type(head: bytes) -> ImageType:
    if _has_any(head, _KERNELS) or (head.startswith(b"MZ") and b".linux\0\0" in head[:_UNPACKED]):
        return ImageType.KERNEL
    if head.startswith(_UIMAGE) and (of := head[_UIMAGE_TYPE : _UIMAGE_TYPE + 1]) in _UIMAGE_TYPES:
        return _UIMAGE_TYPES[of]
    if head.startswith((*_CPIO, _ZSTD)):
        return ImageType.RAMDISK
    if _has_any(head, _DISKS) or _has_partitions(head):
        return ImageType.MACHINE
    return ImageType.RAW


def _has_any(head: bytes, marks: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head.startswith(mark, offset) for offset, mark in marks)


def _has_partitions(head: bytes) -> bool:
    """Tell a partition table from the boot sector of a file system, which ends in the same two bytes."""
    if head[510:_SECTOR] != b"\x55\xaa":
        return False
    entries = [head[446 + 16 * number :][:16] for number in range(4)]
    used = [entry for entry in entries if entry[4]]
    is_sane = all(entry[0] in {0x00, 0x80} for entry in entries)
    return is_sane and bool(used) and all(struct.unpack_from("<I", entry, 12)[0] for entry in used)


def _unpacked(head: bytes) -> bytes:
    """Give the first bytes of what is compressed; nothing where that can't be told."""
    for mark, unpack in _UNPACKERS.items():
        if head.startswith(mark):
            try:
                return unpack(head)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, IndexError):
                return b""
    return b""


def _lz4_literals(block: bytes) -> bytes:
    """Give the literals with which an LZ4 block begins; nothing else can come first."""
    count, start = block[0] >> 4, 1
    if count == _LZ4_LONG:
        # The count goes on in bytes of 255 up to the first smaller one.
        while block[start] == _FULL:
            count, start = count + _FULL, start + 1
        count, start = count + block[start], start + 1
    return block[start : start + count]


def _lz4_frame(head: bytes) -> bytes:
    flags = head[4]
    start = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    is_stored = head[start + 3] & 0x80
    block = head[start + 4 :]
    return block[:_UNPACKED] if is_stored else _lz4_literals(block)


_UNPACKERS: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": lambda head: zlib.decompressobj(wbits=31).decompress(head, _UNPACKED),
    b"\xfd7zXZ\0": lambda head: lzma.LZMADecompressor().decompress(head, _UNPACKED),
    b"\x5d\0\0": lambda head: lzma.LZMADecompressor().decompress(head, _UNPACKED),
    b"BZh": lambda head: bz2.BZ2Decompressor().decompress(head, _UNPACKED),
    _LZ4: _lz4_frame,
    _LZ4_LEGACY: lambda head: _lz4_literals(head[8:]),
}
