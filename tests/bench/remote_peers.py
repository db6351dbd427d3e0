# SPDX-License-Identifier: Apache-2.0
"""Whom the mount of a server is measured beside: rclone mount and davfs2, each of the same server's WebDAV door.

Answers for mounting a server with each of them, as they come, and for the time until a server has a file.

Threading: used from pytest's main thread.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tests.bench.load import BUFFER
from tests.bench.mount_peers import MIB, mounted
from tests.e2e.dav import test_davfs2 as davfs2
from tests.support.dav_folder import DavFolder
from tests.support.mounting import Mounts
from tests.support.servers import RunningServer

_PATIENCE: Final = 120.0


@contextmanager
def ours(mounts: Mounts, server: RunningServer, *options: str) -> Iterator[Path]:
    """Our own mount of a server."""
    mount = mounts.mount(source=server.url, options=options)
    yield mount.point
    mount.end()


@contextmanager
def rclone(server: RunningServer, point: Path) -> Iterator[Path]:
    """Mount it with rclone, which reads and writes through."""
    remote = f":webdav,url='{server.url}/dav',vendor=owncloud:"
    with mounted(["rclone", "mount", "--config", os.devnull, remote, point], point):
        yield point


@contextmanager
def davfs(server: RunningServer, place: Path) -> Iterator[Path]:
    """Mount it with davfs2, which fetches whole files when they are opened, and uploads at once what was closed."""
    with davfs2.mounted(DavFolder(server=server, path="/dav"), place, delay=0) as made:
        yield made.point


def read_from_open(path: Path, *, count: int) -> float:
    """Open a file and read pieces of 4 KiB from all over it, each once; gives reads per second, the open included."""
    size = path.stat().st_size
    places = random.Random(5).sample(range(size // 4096), count)
    buffer = bytearray(4096)
    start = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    for place in places:
        assert os.preadv(descriptor, [buffer], place * 4096) == len(buffer)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return count / seconds


def read_whole_from_open(path: Path) -> float:
    """Open a file and read it in pieces of 1 MiB; gives MiB per second, the open included."""
    buffer = bytearray(BUFFER)
    start, size = time.perf_counter(), 0
    descriptor = os.open(path, os.O_RDONLY)
    while piece := os.readv(descriptor, [buffer]):
        size += piece
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return size / MIB / seconds


def write_until_there(path: Path, size: int, server: RunningServer) -> float:
    """Write a file in pieces of 1 MiB, close it and wait until the server has all of it; gives MiB per second."""
    data = random.randbytes(BUFFER)
    start = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for _ in range(size // BUFFER):
        os.write(descriptor, data)
    os.close(descriptor)
    _wait(lambda: _size(server, path.name) == size)
    seconds = time.perf_counter() - start
    path.unlink()
    _wait(lambda: _size(server, path.name) is None)
    return size / MIB / seconds


def _size(server: RunningServer, name: str) -> int | None:
    reply = server.ask("HEAD", f"/dav/{name}")
    return int(reply.headers["content-length"]) if reply.status == HTTPStatus.OK else None


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
