# SPDX-License-Identifier: Apache-2.0
"""What POSIX and Linux say of calls on names and folders: each case runs on the mount and on the machine's own disk.

The disk shows that a case asks for what other file systems do. What a case would need and the mount does not have, and
why, is in docs/reference/posix.md.
"""
# The system calls themselves are what is tested, and pathlib tidies paths up.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH116, PTH208

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.mount.places import must_fail, rename_without_replacing

pytestmark = pytest.mark.e2e


# ---- mkdir


def test_mkdir_makes_a_folder(place: Path) -> None:
    os.mkdir(f"{place}/a/")
    assert stat.S_ISDIR((place / "a").stat().st_mode)
    assert list((place / "a").iterdir()) == []
    (place / "a" / "b" / "c").mkdir(parents=True)
    assert [path.name for path in (place / "a").iterdir()] == ["b"]


def test_mkdir_refuses_what_exists(place: Path) -> None:
    (place / "file").write_bytes(b"data")
    (place / ".staged").write_bytes(b"data")
    (place / "folder").mkdir()
    for name in ("file", ".staged", "folder", "folder/..", "folder/."):
        must_fail(errno.EEXIST, partial(os.mkdir, f"{place}/{name}"))


def test_mkdir_needs_a_folder_to_be_in(place: Path) -> None:
    (place / "file").write_bytes(b"data")
    must_fail(errno.ENOENT, (place / "none" / "a").mkdir)
    must_fail(errno.ENOTDIR, (place / "file" / "a").mkdir)


# ---- rmdir


def test_rmdir_removes_an_empty_folder(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b").rmdir()
    os.rmdir(f"{place}/a/")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["file", ".staged", "folder/"])
def test_rmdir_refuses_a_folder_that_holds_something(place: Path, name: str) -> None:
    (place / "a").mkdir()
    if name.endswith("/"):
        (place / "a" / name).mkdir()
    else:
        (place / "a" / name).write_bytes(b"data")
    must_fail(errno.ENOTEMPTY, (place / "a").rmdir)
    assert (place / "a" / name).exists()


def test_rmdir_refuses_what_is_no_folder(place: Path) -> None:
    (place / "file").write_bytes(b"data")
    must_fail(errno.ENOTDIR, (place / "file").rmdir)
    must_fail(errno.ENOTDIR, (place / "file" / "a").rmdir)
    must_fail(errno.ENOENT, (place / "none").rmdir)


def test_rmdir_refuses_dot_and_dot_dot(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    must_fail(errno.EINVAL, lambda: os.rmdir(f"{place}/a/b/."))
    must_fail(errno.ENOTEMPTY, lambda: os.rmdir(f"{place}/a/b/.."))


def test_a_removed_folder_that_is_open_is_empty(place: Path) -> None:
    (place / "a").mkdir()
    descriptor = os.open(place / "a", os.O_RDONLY | os.O_DIRECTORY)
    (place / "a").rmdir()
    must_fail(errno.ENOENT, lambda: os.open("b", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    must_fail(errno.ENOENT, lambda: os.mkdir("b", dir_fd=descriptor))
    os.close(descriptor)
    assert list(place.iterdir()) == []


def test_a_folder_can_be_made_anew_where_one_was(place: Path) -> None:
    for _ in range(3):
        (place / "a").mkdir()
        (place / "a" / "b").write_bytes(b"data")
        (place / "a" / "b").unlink()
        (place / "a").rmdir()
    must_fail(errno.ENOENT, lambda: os.stat(place / "a"))


# ---- unlink


def test_unlink_removes_a_file(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    (place / "a").unlink()
    must_fail(errno.ENOENT, lambda: os.stat(place / "a"))
    must_fail(errno.ENOENT, (place / "a").unlink)


def test_unlink_refuses_what_is_no_file(place: Path) -> None:
    (place / "folder").mkdir()
    (place / "file").write_bytes(b"data")
    # POSIX has EPERM here, Linux EISDIR.
    must_fail(errno.EISDIR, (place / "folder").unlink)
    must_fail(errno.ENOTDIR, (place / "file" / "a").unlink)
    must_fail(errno.ENOTDIR, lambda: os.unlink(f"{place}/file/"))
    must_fail(errno.ENOENT, (place / "none" / "a").unlink)


def test_a_name_that_was_unlinked_can_be_given_anew(place: Path) -> None:
    for number in range(5):
        (place / "a").write_bytes(b"%d" % number)
        assert (place / "a").read_bytes() == b"%d" % number
        (place / "a").unlink()


# ---- rename


def test_a_file_that_is_moved_while_its_making_is_told_keeps_its_number(place: Path) -> None:
    (place / "folder").mkdir()
    for number in range(50):
        made, moved = place / f"{number}", place / "folder" / f"{number}"
        made.write_bytes(b"data")
        ino = made.stat().st_ino
        made.rename(moved)
        # By then the change feed has come to this.
        if number % 10 == 0:
            time.sleep(0.1)
        assert (number, moved.stat().st_ino) == (number, ino)


def test_a_folder_that_is_made_where_another_was_is_empty_and_another_one(place: Path) -> None:
    (place / "a" / "inside").mkdir(parents=True)
    (place / "a" / "file").write_bytes(b"data")
    for old, new in (("a", "b"), ("b", "c")):
        (place / old).rename(place / new)
        (place / old).mkdir()
        assert not (place / old / "inside").exists()
        assert list((place / old).iterdir()) == []
        assert (place / old).stat().st_ino != (place / new).stat().st_ino
        (place / old / "new").write_bytes(b"beside")
        assert {path.name for path in (place / new).iterdir()} == {"inside", "file"}
        assert (place / new / "file").read_bytes() == b"data"
        assert (place / old / "new").read_bytes() == b"beside"


@pytest.mark.parametrize("name", ["a", ".a"])
def test_rename_moves_a_file_and_keeps_its_number(place: Path, name: str) -> None:
    (place / name).write_bytes(b"data")
    (place / "folder").mkdir()
    number = (place / name).stat().st_ino
    target = place / "folder" / name.replace("a", "b")
    (place / name).rename(target)
    assert target.read_bytes() == b"data"
    assert target.stat().st_ino == number
    assert not (place / name).exists()


@pytest.mark.parametrize(("old", "new"), [("a", "b"), (".a", ".b"), (".a", "b")])
def test_rename_replaces_a_file(place: Path, old: str, new: str) -> None:
    (place / old).write_bytes(b"new")
    (place / new).write_bytes(b"old one")
    reading = os.open(place / new, os.O_RDONLY)
    (place / old).rename(place / new)
    assert (place / new).read_bytes() == b"new"
    assert [path.name for path in place.iterdir()] == [new]
    assert os.pread(reading, 10, 0) == b"old one"
    os.close(reading)


def test_rename_onto_itself_does_nothing(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    (place / "a").rename(place / "a")
    assert (place / "a").read_bytes() == b"data"


def test_rename_moves_a_folder_with_all_that_is_in_it(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "c").write_bytes(b"data")
    (place / "a" / "b" / ".d").write_bytes(b"staged")
    inside = os.open(place / "a" / "b" / "c", os.O_RDONLY)
    (place / "a").rename(place / "x")
    assert (place / "x" / "b" / "c").read_bytes() == b"data"
    assert (place / "x" / "b" / ".d").read_bytes() == b"staged"
    assert not (place / "a").exists()
    assert os.read(inside, 10) == b"data"
    os.close(inside)


def test_rename_replaces_an_empty_folder_only(place: Path) -> None:
    for name in ("a", "empty", "full"):
        (place / name).mkdir()
    (place / "a" / "file").write_bytes(b"data")
    (place / "full" / "file").write_bytes(b"data")
    must_fail(errno.ENOTEMPTY, lambda: (place / "a").rename(place / "full"))
    (place / "a").rename(place / "empty")
    assert (place / "empty" / "file").read_bytes() == b"data"
    assert sorted(path.name for path in place.iterdir()) == ["empty", "full"]


def test_rename_tells_files_from_folders(place: Path) -> None:
    (place / "file").write_bytes(b"data")
    (place / "folder").mkdir()
    must_fail(errno.EISDIR, lambda: (place / "file").rename(place / "folder"))
    must_fail(errno.ENOTDIR, lambda: (place / "folder").rename(place / "file"))
    must_fail(errno.ENOTDIR, lambda: os.rename(f"{place}/file/", f"{place}/b"))
    assert (place / "file").read_bytes() == b"data"


def test_rename_refuses_to_put_a_folder_into_itself(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    must_fail(errno.EINVAL, lambda: (place / "a").rename(place / "a" / "b" / "c"))
    must_fail(errno.ENOTEMPTY, lambda: (place / "a" / "b").rename(place / "a"))
    assert (place / "a" / "b").is_dir()


def test_rename_needs_both_places(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    must_fail(errno.ENOENT, lambda: (place / "none").rename(place / "b"))
    must_fail(errno.ENOENT, lambda: (place / "a").rename(place / "none" / "b"))
    must_fail(errno.ENOTDIR, lambda: (place / "a").rename(place / "a" / "b"))
    assert (place / "a").read_bytes() == b"data"


def test_rename_without_replacing(place: Path) -> None:
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    (place / "folder").mkdir()
    must_fail(errno.EEXIST, lambda: rename_without_replacing(place / "a", place / "b"))
    must_fail(errno.EEXIST, lambda: rename_without_replacing(place / "a", place / "folder"))
    rename_without_replacing(place / "a", place / "c")
    assert ((place / "b").read_bytes(), (place / "c").read_bytes()) == (b"b", b"a")


def test_names_differ_by_case_and_by_normal_form(place: Path) -> None:
    for name in ("a", "A", "\u00e4", "a\u0308", " a", "a "):
        (place / name).write_bytes(name.encode())
    assert len(list(place.iterdir())) == 6
    assert (place / "\u00e4").read_bytes() == "\u00e4".encode()


def test_replacing_by_rename_never_shows_nothing(place: Path) -> None:
    (place / "a").write_bytes(b"0")
    until = time.monotonic() + 1
    wrong: list[bytes] = []

    def look() -> None:
        while time.monotonic() < until:
            data = (place / "a").read_bytes()
            if not data.isdigit():
                wrong.append(data)

    reader = threading.Thread(target=look)
    reader.start()
    number = 0
    while time.monotonic() < until:
        number += 1
        (place / ".new").write_bytes(b"%d" % number)
        (place / ".new").rename(place / "a")
    reader.join()
    assert wrong == []
    assert (place / "a").read_bytes() == b"%d" % number


# ---- names


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, ".n" + "n" * 253])
def test_names_have_255_bytes_at_most(place: Path, name: str) -> None:
    (place / name).write_bytes(b"data")
    assert (place / name).read_bytes() == b"data"
    assert [path.name for path in place.iterdir()] == [name]
    longer = place / f"{name}ü"
    (place / "folder").mkdir()
    must_fail(errno.ENAMETOOLONG, lambda: os.open(longer, os.O_WRONLY | os.O_CREAT))
    must_fail(errno.ENAMETOOLONG, longer.mkdir)
    must_fail(errno.ENAMETOOLONG, longer.stat)
    must_fail(errno.ENAMETOOLONG, longer.unlink)
    must_fail(errno.ENAMETOOLONG, longer.rmdir)
    must_fail(errno.ENAMETOOLONG, lambda: os.truncate(longer, 0))
    must_fail(errno.ENAMETOOLONG, lambda: (place / name).rename(longer))
    must_fail(errno.ENAMETOOLONG, lambda: longer.rename(place / "b"))
    (place / name).unlink()


def test_paths_have_4095_bytes_at_most(place: Path) -> None:
    longest = f"{place}/"
    longest += "./" * ((4095 - len(longest.encode())) // 2)
    assert os.stat(longest).st_ino == place.stat().st_ino
    must_fail(errno.ENAMETOOLONG, lambda: os.stat(longest + "./"))


def test_folders_nest_deeply(place: Path) -> None:
    path = place.joinpath(*["folder"] * 40)
    path.mkdir(parents=True)
    (path / "a").write_bytes(b"data")
    assert (path / "a").read_bytes() == b"data"
    assert len(list(place.rglob("*"))) == 41


# ---- readdir


def test_a_folder_lists_each_name_once_with_its_number_and_kind(place: Path) -> None:
    for number in range(120):
        (place / f".file{number}").touch()
    (place / "folder").mkdir()
    with os.scandir(place) as entries:
        listed = [(entry.name, entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries]
    assert len(listed) == len({name for name, _, _ in listed}) == 121
    for name, number, is_folder in listed:
        status = (place / name).stat()
        assert (status.st_ino, stat.S_ISDIR(status.st_mode)) == (number, is_folder)


def test_a_folder_can_be_emptied_while_it_is_read(place: Path) -> None:
    for number in range(120):
        (place / f".file{number}").touch()
    with os.scandir(place) as entries:
        for entry in entries:
            os.unlink(entry)
    assert list(place.iterdir()) == []


def test_what_is_made_and_removed_is_listed_so_from_then_on(place: Path) -> None:
    for number in range(5):
        (place / f"{number}").write_bytes(b"data")
        assert f"{number}" in os.listdir(place)
        (place / f"{number}").unlink()
        assert f"{number}" not in os.listdir(place)


def test_a_folder_can_be_opened_synced_and_worked_in(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    inside = os.open("a", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
    os.write(inside, b"data")
    os.fsync(inside)
    os.close(inside)
    os.fsync(descriptor)
    os.rename("a", "b", src_dir_fd=descriptor, dst_dir_fd=descriptor)
    assert os.listdir(descriptor) == ["b"]
    os.close(descriptor)
