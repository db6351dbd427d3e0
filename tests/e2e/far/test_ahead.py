# SPDX-License-Identifier: Apache-2.0
"""Files that a mount of a server sends while programs write them: they arrive as they are, whatever happens meanwhile.

Threading: none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from glancefs.model import ImageStatus
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.processes import Processes
from tests.support.servers import RunningServer, start_server

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """A server with two workers, and a mount of it."""

    server: RunningServer
    mount: Mount


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """One for all tests that kill nothing of it."""
    folder = tmp_path_factory.mktemp("far")
    with Processes(folder) as processes:
        mounts = Mounts(processes, folder)
        server = start_server(processes, folder / "data", "--workers", "2")
        mount = mounts.mount(data=folder / "data", source=server.url, options=[f"staging={folder / 'staging'}"])
        yield Far(server=server, mount=mount)
        mounts.end()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of 60 MiB, in which no two MiB are the same."""
    file = tmp_path_factory.mktemp("source") / "file"
    with file.open("wb") as writer:
        for _ in range(60):
            writer.write(os.urandom(MIB))
    yield file
    file.unlink()


def held(server: RunningServer) -> list[int]:
    """How many bytes the server has of each file that has no name."""
    sizes = []
    for process in server.system_processes():
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                if "/incoming/#" in os.fspath(link.readlink()):
                    sizes.append(link.stat().st_size)
            except OSError:
                continue
    return sizes


def test_most_is_there_before_the_file_is_closed(far: Far) -> None:
    mount, server = far.mount, far.server
    data = os.urandom(40 * MIB + 17)
    with (mount / "in a run").open("wb", buffering=0) as writer:
        writer.write(data[: 30 * MIB])
        eventually(lambda: sum(held(server)) >= 20 * MIB)
        assert "in a run" not in [image.name for image in mount.images()]
        writer.write(data[30 * MIB :])
    assert mount.content("in a run") == data
    assert held(server) == []


def test_over_tls_too_most_is_there_before(mounts: Mounts, tls_server: RunningServer, tmp_path: Path) -> None:
    options = [f"cacert={tls_server.trust},staging={tmp_path / 'staging'}"]
    mount = mounts.mount(data=tls_server.data, source=tls_server.url, options=options)
    data = os.urandom(20 * MIB + 17)
    with (mount / "file").open("wb", buffering=0) as writer:
        writer.write(data[: 10 * MIB])
        eventually(lambda: sum(held(tls_server)) >= 8 * MIB)
        writer.write(data[10 * MIB :])
    assert mount.content("file") == data


def test_a_server_that_is_killed_meanwhile_has_the_file_in_the_end(
    mounts: Mounts, processes: Processes, source: Path, tmp_path: Path
) -> None:
    server = start_server(processes, tmp_path / "data")
    options = [f"staging={tmp_path / 'staging'},timeout=20"]
    mount = mounts.mount(data=tmp_path / "data", source=server.url, options=options)
    data = source.read_bytes()
    with (mount / "file").open("wb", buffering=0) as writer:
        writer.write(data[: 40 * MIB])
        eventually(lambda: sum(held(server)) >= 16 * MIB)
        server.process.kill()
        server = start_server(processes, tmp_path / "data", listen=server.url.removeprefix("http://"))
        writer.write(data[40 * MIB :])
    assert mount.content("file") == data
    # And what was there of the file went with the one that had it.
    incoming = tmp_path / "data" / "images" / "incoming"
    assert [path for path in incoming.glob("*") if path.is_file()] == []
    assert [image.status for image in mount.images()] == [ImageStatus.AVAILABLE]


@pytest.mark.needs("qemu-img")
def test_what_is_written_out_of_order_arrives_as_it_is(far: Far, source: Path, tmp_path: Path) -> None:
    far.mount.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "8", source, "qcow2")
    eventually(lambda: "qcow2" in [image.name for image in far.mount.images()])
    back = tmp_path / "back"
    back.write_bytes(far.mount.content("qcow2"))
    compared = far.mount.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, back)
    assert "identical" in compared.out


def test_a_head_that_is_written_anew_and_an_end_that_is_cut_arrive_as_they_are(far: Far, source: Path) -> None:
    mount, server = far.mount, far.server
    data = bytearray(source.read_bytes())
    with (mount / "anew").open("wb", buffering=0) as writer:
        writer.write(data)
        eventually(lambda: sum(held(server)) >= 8 * MIB)
        mount.run("dd", f"if={source}", "of=anew", "bs=1M", "count=2", "skip=5", "conv=notrunc", "status=none")
        data[: 2 * MIB] = data[5 * MIB : 7 * MIB]
        writer.truncate(33 * MIB + 5)
        eventually(lambda: held(server) == [])
    assert mount.content("anew") == bytes(data[: 33 * MIB + 5])


def test_nothing_stays_of_a_writer_that_is_killed(far: Far, processes: Processes) -> None:
    mount, server = far.mount, far.server
    before = _used(server.data)
    working = processes.start(["bash", "-c", "ulimit -f 4194304; exec cp /dev/zero endless"], cwd=mount.point)
    eventually(lambda: held(server))
    working.send(signal.SIGKILL)
    working.wait()
    eventually((mount / ".glance/pending/endless").exists)
    eventually(lambda: held(server) == [])
    assert "endless" not in [image.name for image in mount.images()]
    assert _used(server.data) - before < MIB
    (mount / ".glance/pending/endless").unlink()


def _used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
