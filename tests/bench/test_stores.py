# SPDX-License-Identifier: Apache-2.0
"""How fast data go into and out of a Swift, beside the `swift` command, on the same cluster and the same disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.figures import Report
from tests.bench.load import alternate, get, medians, send
from tests.support.mounting import Mounts
from tests.support.processes import Argument, Processes, product, run
from tests.support.servers import start_server
from tests.support.swift import KEY, USER, start_swift

SIZE = 512 << 20
RUNS = 5
META = ["x-image-meta-name: large", "x-image-meta-type: raw", "x-image-meta-is_public: true"]
NOWHERE = ("bash", "-c", '"$@" >/dev/null', "bash")
"""What runs a command whose output nobody wants."""


@pytest.fixture
def half_gibibyte(tmp_path: Path) -> Path:
    """A file without any order in it."""
    file = tmp_path / "random.img"
    with file.open("wb") as data:
        for _ in range(SIZE >> 23):
            data.write(os.urandom(1 << 23))
    os.sync()
    return file


def rate(work: Callable[[], object]) -> float:
    """Megabytes per second; the disk is at rest before and after."""
    begun = time.perf_counter()
    work()
    took = time.perf_counter() - begun
    os.sync()
    return SIZE / took / 1e6


@pytest.mark.needs("swift", "fuse")
def test_swift(report: Report, half_gibibyte: Path, tmp_path: Path, processes: Processes, mounts: Mounts) -> None:
    cluster = start_swift(processes, tmp_path / "cluster", most_segments=1000)
    client = {"ST_AUTH": cluster.auth_url, "ST_USER": USER, "ST_KEY": KEY}
    said = {
        "default_store": "swift",
        "stores_swift_auth_url": cluster.auth_url,
        "stores_swift_auth_version": "1",
        "stores_swift_user": USER,
        "stores_swift_key": KEY,
    }
    env = {f"GLANCEFS_{name.upper()}": value for name, value in said.items()}
    server = start_server(processes, tmp_path / "data", env=env)
    fetch: list[Argument] = [product("swift"), "download", "c", "large", "--output", "-"]

    def swift(*words: Argument) -> float:
        return rate(lambda: run([*NOWHERE, *words], env=client, timeout=600))

    def post() -> float:
        measured = send("POST", f"{server.url}/images/", half_gibibyte, headers=META)
        [image] = server.ask("GET", "/images/").json["images"]
        assert server.ask("DELETE", f"/images/{image['id']}").status == 200
        os.sync()
        return measured

    ups = alternate(
        RUNS, ours=post, peer=lambda: swift(product("swift"), "upload", "c", half_gibibyte, "--object-name", "large")
    )
    middle = medians(ups)
    report.add("swift-upload", ours=middle["ours"], peer=middle["peer"], runs=[ups])
    send("POST", f"{server.url}/images/", half_gibibyte, headers=META)
    [image] = server.ask("GET", "/images/").json["images"]
    assert server.ask("HEAD", f"/images/{image['id']}").headers["x-image-meta-store"] == "swift"
    mount = mounts.mount(data=tmp_path / "data", env=env)
    downs = alternate(
        RUNS,
        ours=lambda: get(f"{server.url}/images/{image['id']}", size=SIZE),
        peer=lambda: swift(*fetch),
        mounted=lambda: rate(lambda: mount.shell("cat large >/dev/null", timeout=600)),
    )
    middle = medians(downs)
    report.add("swift-download", ours=middle["ours"], peer=middle["peer"], runs=[downs])
    report.add("swift-mount", ours=middle["mounted"], peer=middle["peer"])
