# SPDX-License-Identifier: Apache-2.0
"""Writers that are killed, and daemons: no half image appears, and what was complete is there."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glancefs.model import ImageStatus
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.processes import Processes, product, run

MIB = 1 << 20
SIGNALS = ["INT", "TERM", "KILL"]
PROMISE = "A program that was killed leaves no image: what it wrote is in `.glance/pending/`, and can be removed there."


def kill_at_work(
    processes: Processes, command: str, folder: Path, number: signal.Signals, *, seen: Callable[[], int]
) -> None:
    """Start a program in a folder, and end it by a signal once something of what it writes is seen."""
    # What is never killed would fill the disk.
    working = processes.start(["bash", "-c", f"ulimit -f {4 * MIB}; exec {command}"], cwd=folder)
    eventually(lambda: seen() > MIB)
    working.send(number)
    working.wait()


def size_of(path: Path) -> int:
    """The size of a file; 0 for none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.promise(PROMISE)
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "writer",
    [
        "cp /dev/zero a.raw",
        "dd if=/dev/zero of=a.raw bs=64k",
        "cat /dev/zero >a.raw",
        "tee a.raw </dev/zero >/dev/null",
    ],
    ids=["cp", "dd", "cat", "tee"],
)
def test_a_killed_writer_leaves_no_image(
    shared_mount: Mount, on_mount: Path, processes: Processes, writer: str, number: str
) -> None:
    kill_at_work(processes, writer, on_mount, getattr(signal, f"SIG{number}"), seen=lambda: size_of(on_mount / "a.raw"))
    pending = shared_mount / ".glance/pending"
    eventually((pending / "a.raw").exists)
    assert shared_mount.images() == []
    assert list(on_mount.iterdir()) == []
    assert [path.name for path in pending.iterdir()] == ["a.raw"]
    shared_mount.run("rm", ".glance/pending/a.raw")
    assert list(pending.iterdir()) == []


def test_what_a_killed_writer_left_is_taken_up_again(mounted: Mount, processes: Processes) -> None:
    kill_at_work(
        processes, "cp /dev/zero a.raw", mounted.point, signal.SIGKILL, seen=lambda: size_of(mounted / "a.raw")
    )
    eventually((mounted / ".glance/pending/a.raw").exists)
    mounted.shell("mv .glance/pending/a.raw a.raw")
    assert mounted.image("a.raw").status is ImageStatus.AVAILABLE


def test_a_killed_replacement_leaves_the_old_image(mounted: Mount, processes: Processes) -> None:
    (mounted / "a").write_bytes(b"old")
    before = mounted.image("a")
    # At the path is the old image until it is replaced.
    staged = mounted.data / "images" / "incoming" / "staged"
    kill_at_work(
        processes,
        "cp /dev/zero a",
        mounted.point,
        signal.SIGKILL,
        seen=lambda: max((size_of(path) for path in staged.glob("*/*")), default=0),
    )
    eventually((mounted / ".glance/pending/a").exists)
    assert mounted.image("a").id == before.id
    assert (mounted / "a").read_bytes() == b"old"


@pytest.mark.promise("After `umount` returns, everything that was closed without an error is an image.")
def test_a_mount_that_ends_right_after_forty_writers_has_all_forty(mounts: Mounts) -> None:
    mounted = mounts.mount()
    mounted.shell("for i in $(seq 40); do head -c 300000 /dev/urandom >f$i & done; wait")
    run(["umount", mounted.point])
    assert mounted.process.wait() == 0
    images = mounted.images()
    assert len(images) == 40
    assert all(image.status is ImageStatus.AVAILABLE and image.size == 300_000 for image in images)


def _write_until_the_end(folder: Path, ledger: Path, seed: int) -> subprocess.Popen[bytes]:
    """Start a writer that notes each file whose close has succeeded, with its checksum."""
    script = (
        "import hashlib, os, random, sys\n"
        "folder, ledger, seed = sys.argv[1:]\n"
        "chance = random.Random(seed)\n"
        # Relative to the mount, so that nothing is written to the folder below once it is gone.
        "mount = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)\n"
        "if not os.path.ismount(folder): sys.exit()\n"
        "with open(ledger, 'a') as book:\n"
        "    for number in range(100000):\n"
        "        name = f'{seed}-{number}'\n"
        "        data = chance.randbytes(chance.choice([10, 5000, 300000]))\n"
        "        try:\n"
        "            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=mount)\n"
        "            os.write(fd, data)\n"
        "            os.close(fd)\n"
        "        except OSError:\n"
        "            break\n"
        "        book.write(f'{name} {hashlib.sha256(data).hexdigest()}\\n')\n"
        "        book.flush()\n"
    )
    return subprocess.Popen(["timeout", "60", "python3", "-c", script, folder, ledger, str(seed)])


def _kill_and_compare(mounts: Mounts, tmp_path: Path, *, rounds: int) -> None:
    chance = random.Random(7)
    ledger = tmp_path / "ledger"
    ledger.touch()
    for turn in range(rounds):
        mounted = mounts.mount()
        writers = [_write_until_the_end(mounted.point, ledger, turn * 10 + number) for number in range(3)]
        eventually(lambda: ledger.stat().st_size)
        time.sleep(chance.uniform(0, 0.5))
        mounted.kill()
        for writer in writers:
            writer.wait(60)
    mounted = mounts.mount()
    images = {image.name: image for image in mounted.images()}
    promised = dict(line.split() for line in ledger.read_text().splitlines())
    assert {name for name in promised if name not in images} == set()
    assert {name for name, digest in promised.items() if images[name].checksum != f"sha256:{digest}"} == set()
    assert {image.status for image in images.values()} <= {ImageStatus.AVAILABLE}
    for name in random.Random(1).sample(sorted(promised), min(20, len(promised))):
        assert f"sha256:{run(['sha256sum', mounted / name]).out.split()[0]}" == images[name].checksum
    mounted.shell("find .glance/pending -type f -delete")
    mounted.end()
    staged = [path for path in (mounted.data / "images" / "incoming").rglob("*") if path.is_file()]
    assert staged == []


@pytest.mark.promise("A file whose `close` has succeeded is an image, whatever becomes of the mount.")
def test_what_was_closed_survives_the_daemon_and_nothing_half_appears(mounts: Mounts, tmp_path: Path) -> None:
    _kill_and_compare(mounts, tmp_path, rounds=2)
    assert mounts.made


@pytest.mark.soak
def test_a_hundred_killed_daemons_lose_nothing(mounts: Mounts, tmp_path: Path) -> None:
    _kill_and_compare(mounts, tmp_path, rounds=100)
    assert len(mounts.made) == 101


def test_a_dead_mount_is_cleared_away_by_the_next(mounts: Mounts, tmp_path: Path) -> None:
    mounted = mounts.mount()
    (mounted / "a").write_bytes(b"data")
    os.kill(mounted.process.pid, signal.SIGKILL)
    mounted.process.wait()
    with pytest.raises(OSError, match="not connected"):
        mounted.point.stat()
    again = mounts.mount(point=mounted.point)
    assert (again / "a").read_bytes() == b"data"
    lines = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(mounted.point) in line]
    assert len(lines) == 1


def test_what_was_staged_when_the_daemon_died_is_pending_on_the_next_mount(mounts: Mounts) -> None:
    mounted = mounts.mount()
    descriptor = os.open(mounted / ".build", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"half")
    os.fsync(descriptor)
    os.kill(mounted.process.pid, signal.SIGKILL)
    mounted.process.wait()
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)
    again = mounts.mount(point=mounted.point)
    assert again.images() == []
    assert (again / ".glance/pending/.build").read_bytes() == b"half"
    again.run("mv", ".glance/pending/.build", "done.raw")
    assert again.content("done.raw") == b"half"


def test_umount_says_so_where_nothing_is_mounted(tmp_path: Path) -> None:
    said = run([product(), "umount", tmp_path], expect=2)
    assert said.err == f"glancefs: {tmp_path} is no mount of glancefs.\n"
