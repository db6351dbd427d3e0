# SPDX-License-Identifier: Apache-2.0
"""Reading a mount of a server, and its cache: little is asked of the server, and what is here needs none.

Threading: called by pytest from its main thread.
"""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounting import Mount, Mounts, eventually
from tests.support.processes import Argument, Processes, product, run
from tests.support.servers import RunningServer, start_server

pytestmark = pytest.mark.e2e

MIB = 1 << 20
SIZE = 24 * MIB + 12_345
DATA = random.Random(21).randbytes(SIZE)


def serve(processes: Processes, folder: Path) -> RunningServer:
    """Start a server with one image, whose file lies beside its data folder."""
    (folder / "disk.img").write_bytes(DATA)
    words: list[Argument] = ["add", "--data", folder / "far", "--type", "raw", "--name", "disk.img"]
    run([product(), *words, folder / "disk.img"])
    return start_server(processes, folder / "far")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server of this module."""
    folder = tmp_path_factory.mktemp("far")
    with Processes(folder) as processes:
        yield serve(processes, folder)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def sent(server: RunningServer) -> int:
    """How many bytes of images the server has sent by now."""
    text = server.ask("GET", "/metrics").body.decode()
    lines = re.findall(r'^glancefs_response_bytes_total\{[^}]*method="GET"[^}]*\} ([\d.e+]+)$', text, re.MULTILINE)
    return int(sum(float(number) for number in lines))


def whole(cache: Path) -> bool:
    names = [path.name for path in cache.glob("*/*")]
    return any(re.fullmatch("[0-9a-f]{64}", name) for name in names) and not any("index" in name for name in names)


def fill(mount: Mount, cache: Path) -> None:
    """Have the image in the cache as a whole."""
    assert (mount / "disk.img").read_bytes() == DATA
    eventually(lambda: whole(cache))


def test_tools_read_what_the_server_has(server: RunningServer, mounts: Mounts, tmp_path: Path) -> None:
    mount = mounts.mount(source=server.url)
    before = sent(server)
    mount.run("cp", "disk.img", tmp_path / "copy.img")
    assert (tmp_path / "copy.img").read_bytes() == DATA
    assert sent(server) - before < 1.2 * SIZE


def test_reads_at_random_cost_little_more_than_they_need(server: RunningServer, mounts: Mounts) -> None:
    mount = mounts.mount(source=server.url)
    before = sent(server)
    descriptor = os.open(mount / "disk.img", os.O_RDONLY)
    places = random.Random(2).sample(range(SIZE // 4096), 100)
    for place in places:
        assert os.pread(descriptor, 4096, place * 4096) == DATA[place * 4096 : (place + 1) * 4096]
    os.close(descriptor)
    assert sent(server) - before <= 100 * (64 << 10) + MIB


def test_what_was_read_is_not_asked_for_again_by_a_mount_beside_it_or_the_next_one(
    server: RunningServer, mounts: Mounts, cache: Path
) -> None:
    options = [f"cache={cache},cache_size=1G"]
    first, beside = (mounts.mount(source=server.url, options=options) for _ in range(2))
    fill(first, cache)
    before = sent(server)
    assert (beside / "disk.img").read_bytes() == DATA
    for mount in (first, beside):
        mount.end()
    following = mounts.mount(source=server.url, options=options)
    following.run("cmp", "disk.img", server.data.parent / "disk.img")
    assert sent(server) - before < MIB


def test_a_mount_that_is_killed_leaves_a_cache_that_is_right(
    server: RunningServer, mounts: Mounts, cache: Path
) -> None:
    options = [f"cache={cache},cache_size=1G"]
    first = mounts.mount(source=server.url, options=options)
    descriptor = os.open(first / "disk.img", os.O_RDONLY)
    assert os.pread(descriptor, 9 * MIB, 0) == DATA[: 9 * MIB]
    first.kill()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.close(descriptor)
    second = mounts.mount(source=server.url, options=options)
    fill(second, cache)


def test_without_the_server_what_is_cached_is_read_and_it_recovers_by_itself(
    mounts: Mounts, cache: Path, processes: Processes, tmp_path: Path
) -> None:
    server = serve(processes, tmp_path)
    mount = mounts.mount(source=server.url, options=[f"cache={cache},cache_size=1G,timeout=2"])
    with (mount / "disk.img").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), MIB, 0) == DATA[:MIB]
        server.process.kill()
        # Beside what the kernel has: by another descriptor, around its cache.
        descriptor = os.open(mount / "disk.img", os.O_RDONLY | os.O_DIRECT)
        assert os.pread(descriptor, 4096, 4096) == DATA[4096:8192]
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(descriptor, 4096, 20 * MIB)
        start_server(processes, server.data, listen=f"{server.host}:{server.port}")
        assert os.pread(file.fileno(), SIZE, 0)[: 12 * MIB] == DATA[: 12 * MIB]
        os.close(descriptor)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("cache={point}/cache", "is on the mount itself"),
        ("cache={cache},cache_size=1M", "too small; it takes 16 MiB at the least"),
    ],
)
def test_a_cache_that_can_not_be_is_one_clear_line(
    server: RunningServer, cache: Path, tmp_path: Path, options: str, words: str
) -> None:
    point = tmp_path / "point"
    point.mkdir()
    said = options.format(point=point, cache=cache)
    refused = run([product(), "mount", server.url, point, "-o", said], expect=None)
    assert words in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not point.is_mount()
