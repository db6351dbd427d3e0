# SPDX-License-Identifier: Apache-2.0
"""Whom the mount is measured beside: bindfs, libfuse's own passthrough_ll, rclone mount, and the file system below.

Answers for mounting a folder with each of them, and for work on files that takes little of the machine itself.

Threading: used from pytest's main thread; parallel work runs in threads that spend their time in the kernel.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Final

from glancefs.stores.disk import sync_folder
from tests.bench.load import BUFFER
from tests.support.leaks import unmount
from tests.support.mounting import Mounts
from tests.support.processes import Argument, run

SOURCE: Final = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
MIB: Final = 1 << 20
_READY_SECONDS: Final = 20

Place = Callable[[Path, Path], Iterator[Path]]


def build_passthrough(folder: Path) -> Path:
    """Compile libfuse's example of a file system that does nothing, in C."""
    program = folder / "passthrough_ll"
    flags = run(["pkg-config", "fuse3", "--cflags", "--libs"]).out.split()
    run(["gcc", "-O2", "-w", SOURCE, "-o", program, *flags])
    return program


@contextmanager
def mounted(words: list[Argument], point: Path) -> Iterator[Path]:
    """Run a file system in the foreground until the block ends."""
    point.mkdir(exist_ok=True)
    with subprocess.Popen([os.fspath(word) for word in words], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + _READY_SECONDS
        while not point.is_mount():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            yield point
        finally:
            unmount(point)
            process.terminate()


@contextmanager
def ours(mounts: Mounts, data: Path) -> Iterator[Path]:
    """Mount a data folder with nothing in the kernel's cache of it."""
    mount = mounts.mount(data=data)
    yield mount.point
    mount.end()


def read_whole(path: Path) -> float:
    """Read a file in pieces of 1 MiB; gives MiB per second."""
    buffer = bytearray(BUFFER)
    descriptor = os.open(path, os.O_RDONLY)
    start, size = time.perf_counter(), 0
    while piece := os.readv(descriptor, [buffer]):
        size += piece
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return size / MIB / seconds


def write_whole(path: Path, size: int) -> float:
    """Write a file in pieces of 1 MiB, without its close; gives MiB per second."""
    data = random.randbytes(BUFFER)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    start = time.perf_counter()
    for _ in range(size // BUFFER):
        os.write(descriptor, data)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    path.unlink()
    return size / MIB / seconds


def read_at_random(path: Path, *, count: int) -> float:
    """Read pieces of 4 KiB from all over a file, each once; gives reads per second."""
    size = path.stat().st_size
    places = random.Random(5).sample(range(size // 4096), count)
    buffer = bytearray(4096)
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    start = time.perf_counter()
    for place in places:
        os.preadv(descriptor, [buffer], place * 4096)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return count / seconds


def create_many(folder: Path, *, clients: int, seconds: float, are_synced: bool = False) -> float:
    """Make files of 4 KiB by so many clients at once, each a process; gives files per second, each closed.

    ``are_synced``: each client also has the file and its name brought to the disk, where a close does not.
    """
    data = os.urandom(4096)
    start = time.perf_counter()
    reader, writer = os.pipe()
    processes = []
    for number in range(clients):
        # Forked, since threads of this process would wait for each other.
        process = os.fork()
        if not process:
            made = 0
            try:
                while time.perf_counter() < start + seconds:
                    descriptor = os.open(folder / f"c{number}-{made}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                    os.write(descriptor, data)
                    if are_synced:
                        os.fsync(descriptor)
                        sync_folder(folder)
                    os.close(descriptor)
                    made += 1
                os.write(writer, b"%d\n" % made)
            finally:
                os._exit(0)
        processes.append(process)
    for process in processes:
        os.waitpid(process, 0)
    took = time.perf_counter() - start
    os.close(writer)
    with open(reader) as told:  # noqa: PTH123 - pathlib opens no descriptors
        made_by = [int(line) for line in told]
    assert len(made_by) == clients
    return sum(made_by) / took


def lists_per_second(folder: Path) -> float:
    """How often a second `ls -l` lists a folder; one look."""
    start = time.perf_counter()
    run(["sh", "-c", 'ls -l "$1" >/dev/null', "sh", folder])
    return 1 / (time.perf_counter() - start)


def slowest_stat(path: Path, readers: list[Path], *, seconds: float) -> float:
    """Ask for a file's attributes while others read; gives the 99th percentile in milliseconds.

    The readers are processes: threads would have who asks wait for the interpreter as well, once for each reader.
    """
    script = 'while dd if="$1" of=/dev/null bs=1M iflag=nocache status=none; do :; done'
    with ExitStack() as running:
        for target in readers:
            # A session of its own, so that the shell ends with the dd that it runs.
            reader = running.enter_context(subprocess.Popen(["sh", "-c", script, "sh", target], start_new_session=True))
            running.callback(os.killpg, reader.pid, signal.SIGKILL)
        taken = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            path.stat()
            taken.append((time.perf_counter() - start) * 1000)
            time.sleep(0.005)
    return quantiles(taken, n=100)[98]


def resident(pid: int) -> float:
    """How much memory a process takes, in MiB."""
    (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kib) / 1024
