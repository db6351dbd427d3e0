# SPDX-License-Identifier: Apache-2.0
"""What POSIX and Linux say of system calls on files: each case runs on the mount and on the machine's own disk.

The disk shows that a case asks for what other file systems do. What a case would need and the mount does not have, and
why, is in docs/reference/posix.md.
"""
# The system calls themselves are what is tested, and pathlib tidies paths up.
# ruff: noqa: PTH116

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.mount.places import NANOSECONDS, must_fail
from tests.support.mounting import Mounts

pytestmark = pytest.mark.e2e

YEAR_2100 = 4_102_444_800


# ---- open


def test_open_creates_an_empty_regular_file(place: Path) -> None:
    descriptor = os.open(place / "a", os.O_WRONLY | os.O_CREAT)
    status = os.fstat(descriptor)
    os.close(descriptor)
    assert (stat.S_ISREG(status.st_mode), status.st_size, status.st_nlink) == (True, 0, 1)
    assert [path.name for path in place.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["a", ".a"])
def test_open_with_o_excl_refuses_what_exists(place: Path, name: str) -> None:
    (place / name).write_bytes(b"data")
    must_fail(errno.EEXIST, lambda: os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    (place / "folder").mkdir()
    must_fail(errno.EEXIST, lambda: os.open(place / "folder", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    assert (place / name).read_bytes() == b"data"


def test_open_with_o_excl_has_one_winner(place: Path) -> None:
    won: list[int] = []
    together = threading.Barrier(16)

    def race(number: int) -> None:
        together.wait()
        try:
            descriptor = os.open(place / "a", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return
        won.append(number)
        os.close(descriptor)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_open_refuses_what_is_not_there(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    must_fail(errno.ENOENT, lambda: os.open(place / "b", os.O_RDONLY))
    must_fail(errno.ENOENT, lambda: os.open(place / "b" / "c", os.O_WRONLY | os.O_CREAT))
    must_fail(errno.ENOTDIR, lambda: os.open(place / "a" / "c", os.O_RDONLY))
    must_fail(errno.ENOTDIR, lambda: os.open(place / "a" / "c", os.O_WRONLY | os.O_CREAT))


def test_open_tells_files_from_folders(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    (place / "folder").mkdir()
    must_fail(errno.ENOTDIR, lambda: os.open(place / "a", os.O_RDONLY | os.O_DIRECTORY))
    must_fail(errno.ENOTDIR, lambda: os.open(f"{place}/a/", os.O_RDONLY))
    must_fail(errno.EISDIR, lambda: os.open(place / "folder", os.O_WRONLY))
    must_fail(errno.EISDIR, lambda: os.open(place / "folder", os.O_RDWR | os.O_CREAT))
    must_fail(errno.EISDIR, lambda: os.open(place / "folder", os.O_RDONLY | os.O_TRUNC))
    must_fail(errno.EISDIR, lambda: os.open(f"{place}/new/", os.O_WRONLY | os.O_CREAT))


def test_open_without_o_excl_opens_what_is_there(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    descriptor = os.open(place / "a", os.O_RDONLY | os.O_CREAT)
    assert os.read(descriptor, 10) == b"data"
    os.close(descriptor)


@pytest.mark.parametrize("name", ["a", ".a"])
def test_open_with_o_trunc_empties(place: Path, name: str) -> None:
    (place / name).write_bytes(b"long data")
    descriptor = os.open(place / name, os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(descriptor).st_size == 0
    os.write(descriptor, b"new")
    os.close(descriptor)
    assert (place / name).read_bytes() == b"new"


def test_open_with_o_append_writes_at_the_end(place: Path) -> None:
    (place / ".a").write_bytes(b"one")
    first = os.open(place / ".a", os.O_WRONLY | os.O_APPEND)
    second = os.open(place / ".a", os.O_WRONLY | os.O_APPEND)
    for descriptor, data in ((first, b" two"), (second, b" three"), (first, b" four")):
        os.write(descriptor, data)
    os.lseek(first, 0, os.SEEK_SET)
    os.write(first, b" five")
    os.close(first)
    os.close(second)
    assert (place / ".a").read_bytes() == b"one two three four five"


def test_appending_processes_lose_nothing(place: Path) -> None:
    (place / ".a").touch()
    script = (
        "import os, sys\n"
        "descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for number in range(200):\n"
        "    os.write(descriptor, b'%s %03d\\n' % (sys.argv[2].encode(), number))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-ISc", script, place / ".a", str(number)]) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    lines = (place / ".a").read_text().splitlines()
    assert sorted(lines) == sorted(f"{writer} {number:03}" for writer in range(4) for number in range(200))


def test_a_descriptor_does_what_it_was_opened_for(place: Path) -> None:
    (place / ".a").write_bytes(b"data")
    reading, writing = os.open(place / ".a", os.O_RDONLY), os.open(place / ".a", os.O_WRONLY)
    must_fail(errno.EBADF, lambda: os.write(reading, b"x"))
    must_fail(errno.EBADF, lambda: os.read(writing, 1))
    os.close(reading)
    os.close(writing)


def test_two_descriptors_of_one_file_have_their_own_places_and_duplicates_share_one(place: Path) -> None:
    (place / "a").write_bytes(b"0123456789")
    one, other = os.open(place / "a", os.O_RDONLY), os.open(place / "a", os.O_RDONLY)
    duplicate = os.dup(one)
    assert os.read(one, 3) == b"012"
    assert os.read(duplicate, 3) == b"345"
    assert os.read(other, 3) == b"012"
    for descriptor in (one, other, duplicate):
        os.close(descriptor)


def test_what_was_written_is_read_at_once_through_every_descriptor(place: Path) -> None:
    writing, reading = os.open(place / ".a", os.O_WRONLY | os.O_CREAT), os.open(place / ".a", os.O_RDONLY)
    for number in range(50):
        os.pwrite(writing, b"%04d" % number, number * 5000)
        assert os.pread(reading, 4, number * 5000) == b"%04d" % number
        assert os.fstat(reading).st_size == number * 5000 + 4
    os.close(writing)
    os.close(reading)


def test_reads_end_where_the_file_does_and_gaps_are_zeros(place: Path) -> None:
    descriptor = os.open(place / ".a", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"end", 100_000)
    assert os.pread(descriptor, 10, 100_003) == b""
    assert os.pread(descriptor, 10, 100_001) == b"nd"
    assert os.pread(descriptor, 10, 50_000) == bytes(10)
    assert os.lseek(descriptor, 0, os.SEEK_END) == 100_003
    os.close(descriptor)


def test_an_open_file_outlives_its_name(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    (place / ".b").write_bytes(b"data")
    image, staged = os.open(place / "a", os.O_RDONLY), os.open(place / ".b", os.O_RDWR)
    (place / "a").unlink()
    (place / ".b").unlink()
    assert list(place.iterdir()) == []
    assert (os.fstat(image).st_nlink, os.fstat(staged).st_nlink) == (0, 0)
    assert os.pread(image, 10, 0) == b"data"
    assert os.pwrite(staged, b"more", 4) == 4
    os.ftruncate(staged, 6)
    assert os.pread(staged, 10, 0) == b"datamo"
    os.close(image)
    os.close(staged)
    must_fail(errno.ENOENT, lambda: os.stat(place / ".b"))


def test_an_open_file_goes_with_its_name(place: Path) -> None:
    descriptor = os.open(place / ".a", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"before")
    (place / ".a").rename(place / ".b")
    os.write(descriptor, b" after")
    assert (place / ".b").read_bytes() == b"before after"
    assert os.fstat(descriptor).st_ino == (place / ".b").stat().st_ino
    os.close(descriptor)


# ---- truncate


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 99_999, 100_000, 100_001, 5_000_000])
def test_truncate_cuts_and_stretches(place: Path, size: int) -> None:
    data = os.urandom(100_000)
    for name, cut in ((".a", os.truncate), (".b", None)):
        (place / name).write_bytes(data)
        if cut is not None:
            cut(place / name, size)
        else:
            descriptor = os.open(place / name, os.O_RDWR)
            os.ftruncate(descriptor, size)
            assert os.fstat(descriptor).st_size == size
            os.close(descriptor)
        assert (place / name).read_bytes() == data[:size].ljust(size, b"\0")


def test_what_was_cut_off_does_not_come_back(place: Path) -> None:
    (place / ".a").write_bytes(b"x" * 10_000)
    os.truncate(place / ".a", 5000)
    os.truncate(place / ".a", 10_000)
    assert (place / ".a").read_bytes() == b"x" * 5000 + bytes(5000)


def test_truncate_refuses_what_it_can_t_cut(place: Path) -> None:
    (place / "folder").mkdir()
    (place / ".a").write_bytes(b"data")
    must_fail(errno.EISDIR, lambda: os.truncate(place / "folder", 0))
    must_fail(errno.ENOENT, lambda: os.truncate(place / "none", 0))
    must_fail(errno.ENOTDIR, lambda: os.truncate(place / ".a" / "b", 0))
    must_fail(errno.EINVAL, lambda: os.truncate(place / ".a", -1))
    reading = os.open(place / ".a", os.O_RDONLY)
    must_fail(errno.EINVAL, lambda: os.ftruncate(reading, 0))
    os.close(reading)
    assert (place / ".a").read_bytes() == b"data"


def test_truncate_makes_large_files_without_taking_room(place: Path) -> None:
    (place / ".a").touch()
    os.truncate(place / ".a", 1 << 40)
    status = (place / ".a").stat()
    assert (status.st_size, status.st_blocks) == (1 << 40, 0)
    descriptor = os.open(place / ".a", os.O_RDWR)
    os.pwrite(descriptor, b"end", (1 << 40) - 3)
    assert os.pread(descriptor, 8, (1 << 40) - 8) == b"\0\0\0\0\0end"
    os.close(descriptor)
    (place / ".a").unlink()


def test_truncate_and_write_set_the_time(place: Path) -> None:
    (place / ".a").write_bytes(b"data")
    os.utime(place / ".a", ns=(NANOSECONDS, NANOSECONDS))
    os.truncate(place / ".a", 2)
    cut = (place / ".a").stat().st_mtime
    assert time.time() - cut < 100
    os.utime(place / ".a", ns=(NANOSECONDS, NANOSECONDS))
    descriptor = os.open(place / ".a", os.O_WRONLY)
    os.write(descriptor, b"more")
    os.close(descriptor)
    assert time.time() - (place / ".a").stat().st_mtime < 100


# ---- utimensat


@pytest.mark.parametrize("name", ["a", ".a", "folder"])
@pytest.mark.parametrize("seconds", [0, 1, 1_700_000_000, YEAR_2100, -1_000_000_000])
def test_utimensat_sets_the_time_to_the_nanosecond(place: Path, name: str, seconds: int) -> None:
    if name == "folder":
        (place / name).mkdir()
    else:
        (place / name).write_bytes(b"data")
    wanted = seconds * NANOSECONDS + 123_456_789
    os.utime(place / name, ns=(wanted, wanted))
    assert (place / name).stat().st_mtime_ns == wanted
    reading = os.open(place / name, os.O_RDONLY)
    os.utime(reading, ns=(wanted + 1, wanted + 1))
    assert os.fstat(reading).st_mtime_ns == wanted + 1
    os.close(reading)


def test_utimensat_sets_the_time_to_this_moment(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    os.utime(place / "a", ns=(0, 0))
    os.utime(place / "a")
    assert abs((place / "a").stat().st_mtime - time.time()) < 100


def test_utimensat_refuses_what_is_not_there(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    must_fail(errno.ENOENT, lambda: os.utime(place / "none", ns=(0, 0)))
    must_fail(errno.ENOTDIR, lambda: os.utime(place / "a" / "b", ns=(0, 0)))


def test_the_time_of_last_access_alone_leaves_that_of_modification(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    os.utime(place / "a", ns=(5 * NANOSECONDS, 5 * NANOSECONDS))
    subprocess.run(["touch", "-a", place / "a"], check=True, timeout=20)
    assert (place / "a").stat().st_mtime_ns == 5 * NANOSECONDS


def test_a_time_stays_through_renames(place: Path) -> None:
    (place / ".a").write_bytes(b"data")
    os.utime(place / ".a", ns=(5 * NANOSECONDS, 5 * NANOSECONDS))
    (place / ".a").rename(place / "b")
    (place / "b").rename(place / "c")
    assert (place / "c").stat().st_mtime_ns == 5 * NANOSECONDS


# ---- further system calls


def test_a_file_is_mapped_into_memory(place: Path) -> None:
    data = os.urandom(300_000)
    (place / "a").write_bytes(data)
    with (place / "a").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == data


def test_what_is_changed_in_a_map_is_in_the_file(place: Path) -> None:
    (place / ".a").write_bytes(bytes(20_000))
    with (place / ".a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[5000:5004] = b"data"
        mapped.flush()
    assert (place / ".a").read_bytes() == bytes(5000) + b"data" + bytes(14_996)


def test_locks_keep_others_out(place: Path) -> None:
    (place / ".a").write_bytes(b"data")
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "for lock in (fcntl.flock, fcntl.lockf):\n"
        "    try: lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except BlockingIOError: print('kept out')\n"
        "    else: print('let in')\n"
    )
    for lock in (fcntl.flock, fcntl.lockf):
        with (place / ".a").open("r+b") as file:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = subprocess.run(
                [sys.executable, "-ISc", script, place / ".a"], capture_output=True, check=True, timeout=60
            )
        wanted = [b"kept out", b"let in"] if lock is fcntl.flock else [b"let in", b"kept out"]
        assert said.stdout.splitlines() == wanted


def test_a_file_without_holes_is_data_to_its_end(place: Path) -> None:
    (place / "a").write_bytes(b"x" * 10_000)
    descriptor = os.open(place / "a", os.O_RDONLY)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 10_000
    must_fail(errno.ENXIO, lambda: os.lseek(descriptor, 10_000, os.SEEK_DATA))
    os.close(descriptor)


def test_room_can_be_asked_for(place: Path) -> None:
    descriptor = os.open(place / ".a", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"data")
    os.posix_fallocate(descriptor, 0, 50_000)
    assert os.fstat(descriptor).st_size == 50_000
    assert os.pread(descriptor, 10, 0) == b"data" + bytes(6)
    os.close(descriptor)


def test_the_file_system_tells_of_itself(place: Path) -> None:
    told = os.statvfs(place)
    assert told.f_namemax == 255
    assert 0 < told.f_bavail <= told.f_bfree <= told.f_blocks
    (place / "a").write_bytes(b"data")
    assert (place / "a").stat().st_dev == place.stat().st_dev


# ---- what only the mount does like this (docs/reference/posix.md)


def test_modes_are_accepted_and_change_nothing(on_mount: Path) -> None:
    (on_mount / "a").write_bytes(b"data")
    (on_mount / "folder").mkdir()
    for mode in (0o000, 0o777, 0o1777, 0o2755, 0o4755):
        for name, shown in (("a", 0o644), ("folder", 0o755)):
            (on_mount / name).chmod(mode)
            assert stat.S_IMODE((on_mount / name).stat().st_mode) == shown
    os.chown(on_mount / "a", 12345, 54321)
    assert (on_mount / "a").stat().st_uid == os.getuid()


def test_every_file_and_folder_has_one_link(on_mount: Path) -> None:
    (on_mount / "a").write_bytes(b"data")
    (on_mount / "folder" / "inner").mkdir(parents=True)
    assert [(on_mount / name).stat().st_nlink for name in ("a", "folder")] == [1, 1]


def test_a_folder_keeps_its_time_whatever_is_made_in_it(on_mount: Path) -> None:
    (on_mount / "folder").mkdir()
    os.utime(on_mount / "folder", ns=(NANOSECONDS, NANOSECONDS))
    (on_mount / "folder" / "a").write_bytes(b"data")
    assert (on_mount / "folder").stat().st_mtime_ns == NANOSECONDS


def test_access_times_are_modification_times(on_mount: Path) -> None:
    (on_mount / "a").write_bytes(b"data")
    os.utime(on_mount / "a", ns=(NANOSECONDS, 2 * NANOSECONDS))
    status = (on_mount / "a").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (2 * NANOSECONDS, 2 * NANOSECONDS)


def test_exclusive_creation_and_locks_hold_on_one_mount_only(mounts: Mounts) -> None:
    here, there = mounts.mount(), mounts.mount()
    for mount in (here, there):
        os.close(os.open(mount / ".a", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    assert [path.name for path in there.point.iterdir()] == [".a"]
