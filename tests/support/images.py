# SPDX-License-Identifier: Apache-2.0
"""Real images for the tests: Debian's installer, and what real tools make of it.

Answers for fixtures that are paths of files, made once per run. A test that asks for one names what it rests on:
`@pytest.mark.needs("netboot")`, and `"qemu-img"` or `"xorriso"` for what these make.

Threading: fixtures run in pytest's main thread; the files are only read.
"""

from pathlib import Path

import pytest

from tests.support.capabilities import NETBOOT
from tests.support.processes import run


@pytest.fixture(scope="session")
def netboot_kernel() -> Path:
    """Debian's installer kernel, a bootable bzImage of some 8 MB."""
    return NETBOOT / "linux"


@pytest.fixture(scope="session")
def netboot_initrd() -> Path:
    """Debian's installer ramdisk, a gzipped cpio of some 40 MB."""
    return NETBOOT / "initrd.gz"


@pytest.fixture(scope="session")
def netboot_iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISO 9660 image of the installer's kernel, some 8 MB."""
    iso = tmp_path_factory.mktemp("iso") / "mini.iso"
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-V", "MINI", "-o", iso, NETBOOT / "linux"])
    return iso


@pytest.fixture(scope="session")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 of 64 MiB virtual size that holds the installer's kernel."""
    folder = tmp_path_factory.mktemp("qcow2")
    raw, image = folder / "disk.raw", folder / "disk.qcow2"
    raw.write_bytes((NETBOOT / "linux").read_bytes())
    with raw.open("r+b") as disk:
        disk.truncate(64 << 20)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image])
    raw.unlink()
    return image
