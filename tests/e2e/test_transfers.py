# SPDX-License-Identifier: Apache-2.0
"""Real images go in and come out bit for bit, whichever way they go in and whichever they come out."""

from __future__ import annotations

import filecmp
import hashlib
from pathlib import Path

import pytest

from tests.e2e.ways import WAYS
from tests.support.processes import run
from tests.support.servers import RunningServer

IMAGES = [
    pytest.param(("netboot_kernel", "kernel"), id="netboot_kernel", marks=pytest.mark.needs("netboot")),
    pytest.param(("netboot_initrd", "ramdisk"), id="netboot_initrd", marks=pytest.mark.needs("netboot")),
    pytest.param(("netboot_iso", "machine"), id="netboot_iso", marks=pytest.mark.needs("netboot", "xorriso")),
    pytest.param(("qcow2", "machine"), id="qcow2", marks=pytest.mark.needs("netboot", "qemu-img")),
]


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A real image and its type."""
    name, kind = request.param
    return request.getfixturevalue(name), kind


@pytest.mark.needs("curl")
@pytest.mark.parametrize("way_in", WAYS)
def test_an_image_comes_out_as_it_went_in_whichever_way(
    server: RunningServer, tmp_path: Path, image: tuple[Path, str], way_in: str
) -> None:
    file, kind = image
    image_id = WAYS[way_in].put(server, file, f"{file.name} by {way_in}", kind)
    meta = server.ask("HEAD", f"/images/{image_id}").headers
    assert meta["x-image-meta-size"] == str(file.stat().st_size)
    assert meta["x-image-meta-checksum"] == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert (meta["x-image-meta-type"], meta["x-image-meta-status"]) == (kind, "available")
    for name, way in WAYS.items():
        got = tmp_path / name
        way.get(server, image_id, got)
        assert filecmp.cmp(file, got, shallow=False), f"came out different by {name}"


@pytest.mark.needs("curl", "netboot")
@pytest.mark.parametrize("way_in", ["curl", "client", "command line by URL"])
def test_an_image_comes_out_as_it_went_in_over_tls(
    tls_server: RunningServer, tmp_path: Path, netboot_kernel: Path, way_in: str
) -> None:
    assert tls_server.url.startswith("https://")
    image_id = WAYS[way_in].put(tls_server, netboot_kernel, "kernel", "kernel")
    for name in ("curl", "client", "command line by URL"):
        WAYS[name].get(tls_server, image_id, tmp_path / name)
        assert filecmp.cmp(netboot_kernel, tmp_path / name, shallow=False), f"came out different by {name}"


@pytest.mark.needs("netboot", "qemu-img")
def test_a_qcow2_that_came_back_is_still_one(server: RunningServer, tmp_path: Path, qcow2: Path) -> None:
    image_id = WAYS["client"].put(server, qcow2, "disk", "machine")
    WAYS["curl"].get(server, image_id, tmp_path / "disk.qcow2")
    run(["qemu-img", "check", "-f", "qcow2", tmp_path / "disk.qcow2"])
    run(["qemu-img", "compare", qcow2, tmp_path / "disk.qcow2"])
