# SPDX-License-Identifier: Apache-2.0
"""How fast data go into and out of a Swift, beside the `swift` command, on the same cluster and the same disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.figures import Report
from tests.bench.load import alternate, medians
from tests.support.mounting import Mounts
from tests.support.processes import Argument, Processes, product, run
from tests.support.swift import KEY, USER, start_swift

SIZE = 512 << 20
RUNS = 5


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
    data, got = tmp_path / "data", tmp_path / "got"

    def swift(*words: Argument) -> None:
        run([product("swift"), *words], env=client, timeout=600)

    def glancefs(*words: Argument) -> str:
        return run([product(), *words, "--data", data], env=env, timeout=600).out

    def add() -> float:
        measured = rate(lambda: glancefs("add", "--name", "large", half_gibibyte))
        glancefs("rm", "large")
        return measured

    def get() -> float:
        measured = rate(lambda: glancefs("get", "kept", "--output", got))
        got.unlink()
        return measured

    ups = alternate(
        RUNS, ours=add, peer=lambda: rate(lambda: swift("upload", "c", half_gibibyte, "--object-name", "large"))
    )
    middle = medians(ups)
    report.add("swift-upload", ours=middle["ours"], peer=middle["peer"], runs=[ups])
    glancefs("add", "--name", "kept", half_gibibyte)
    mount = mounts.mount(data=data, env=env)
    downs = alternate(
        RUNS,
        ours=get,
        peer=lambda: rate(lambda: swift("download", "c", "large", "--output", got)),
        mounted=lambda: rate(lambda: mount.run("cp", "kept", got, timeout=600)),
    )
    middle = medians(downs)
    report.add("swift-download", ours=middle["ours"], peer=middle["peer"], runs=[downs])
    report.add("swift-mount", ours=middle["mounted"], peer=middle["peer"])
    assert got.stat().st_size == SIZE
