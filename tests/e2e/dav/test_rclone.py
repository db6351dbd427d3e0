# SPDX-License-Identifier: Apache-2.0
"""rclone, both as it speaks to any WebDAV server and as it speaks to ownCloud, whose conventions are kept here."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.dav.watching import watched
from tests.support.dav_folder import DavFolder
from tests.support.mounting import eventually
from tests.support.processes import Argument, Finished, Processes, run

pytestmark = pytest.mark.needs("rclone")
OLD = 1_500_000_000


@dataclass(slots=True, kw_only=True)
class Rclone:
    """rclone with one remote, ``dav:``, that is a folder of the door."""

    folder: DavFolder
    vendor: str
    env: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.env = {
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_DAV_TYPE": "webdav",
            "RCLONE_CONFIG_DAV_URL": self.folder.url,
            "RCLONE_CONFIG_DAV_VENDOR": self.vendor,
        }

    def __call__(self, *words: Argument, **said: Any) -> Finished:
        return run(["rclone", "--retries", "1", *words], env=self.env, **said)


@pytest.fixture(params=["other", "owncloud"])
def rclone(request: pytest.FixtureRequest, folder: DavFolder) -> Rclone:
    """The client by both conventions."""
    return Rclone(folder=folder, vendor=request.param)


@pytest.fixture
def owncloud(folder: DavFolder) -> Rclone:
    """The client by the convention that carries times."""
    return Rclone(folder=folder, vendor="owncloud")


def contents(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_a_tree_goes_in_and_comes_out_by_copy(rclone: Rclone, tree: Path, tmp_path: Path) -> None:
    rclone("copy", tree, "dav:")
    images = rclone.folder.images()
    assert {name: image["size"] for name, image in images.items()} == {
        name: str(len(data)) for name, data in contents(tree).items()
    }
    assert {image["status"] for image in images.values()} == {"available"}
    rclone("copy", "dav:", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tree)


def test_check_compares_what_is_here_with_what_is_there(rclone: Rclone, tree: Path) -> None:
    rclone("copy", tree, "dav:")
    for words in (["check"], ["check", "--download"]):
        assert "0 differences found" in rclone(*words, tree, "dav:").err
    (tree / "sub/b c.img").write_bytes(b"another size")
    assert "1 differences found" in rclone("check", tree, "dav:", expect=None).err
    changed = bytearray((tree / "a.img").read_bytes())
    changed[7] ^= 1
    (tree / "a.img").write_bytes(changed)
    assert "2 differences found" in rclone("check", "--download", tree, "dav:", expect=None).err


def test_sync_brings_what_is_new_and_takes_away_what_is_gone(rclone: Rclone, tree: Path) -> None:
    rclone("sync", tree, "dav:")
    before = rclone.folder.images()
    (tree / "a.img").unlink()
    (tree / "sub/b c.img").write_bytes(b"another size")
    rclone("sync", tree, "dav:")
    after = rclone.folder.images()
    assert set(after) == set(contents(tree))
    assert rclone.folder.get("sub/b c.img") == b"another size"
    unchanged = set(after) - {"sub/b c.img"}
    assert {name: after[name]["id"] for name in unchanged} == {name: before[name]["id"] for name in unchanged}


def test_a_second_sync_transfers_nothing(rclone: Rclone, tree: Path) -> None:
    rclone("sync", tree, "dav:")
    before = rclone.folder.images()
    assert "nothing to transfer" in rclone("sync", "-v", tree, "dav:").err
    assert rclone.folder.images() == before


def test_the_times_of_files_are_kept(owncloud: Rclone, tree: Path, tmp_path: Path) -> None:
    os.utime(tree / "a.img", (OLD, OLD))
    owncloud("copy", tree, "dav:")
    assert owncloud.folder.images()["a.img"]["properties"]["mtime"].split(".")[0] == str(OLD)
    owncloud("copy", "dav:a.img", tmp_path / "back")
    assert (tmp_path / "back/a.img").stat().st_mtime == OLD
    # Of the same size, and newer: by the time alone it is another one.
    (tree / "a.img").write_bytes(bytes(reversed((tree / "a.img").read_bytes()[:-1])) + b"z")
    owncloud("copy", tree, "dav:")
    assert owncloud.folder.get("a.img") == (tree / "a.img").read_bytes()


def test_an_upload_whose_checksum_is_another_is_refused(folder: DavFolder) -> None:
    wrong, right = (f"SHA1:{hashlib.sha1(data, usedforsecurity=False).hexdigest()}" for data in (b"other", b"data"))
    assert folder.put("a.img", b"data", {"OC-Checksum": wrong}).status == 400
    assert folder.images() == {}
    assert folder.put("a.img", b"data", {"OC-Checksum": right}).status == 201


def test_move_takes_files_in_and_renames_them_there(rclone: Rclone, tree: Path) -> None:
    expected = contents(tree)
    rclone("move", tree, "dav:")
    assert contents(tree) == {}
    before = rclone.folder.images()
    assert set(before) == set(expected)
    rclone("moveto", "dav:a.img", "dav:other/z.img")
    after = rclone.folder.images()
    assert after["other/z.img"]["id"] == before["a.img"]["id"]
    assert rclone.folder.get("other/z.img") == expected["a.img"]
    assert "a.img" not in after


def test_a_folder_is_moved_and_removed_as_a_whole(rclone: Rclone, tree: Path) -> None:
    rclone("copy", tree, "dav:")
    before = rclone.folder.images()
    rclone("moveto", "dav:sub", "dav:elsewhere")
    assert set(rclone.folder.images()) == {name.replace("sub/", "elsewhere/") for name in before}
    rclone("purge", "dav:elsewhere")
    assert set(rclone.folder.images()) == {"a.img"}
    assert rclone.folder.names() == ["a.img"]


def test_a_copy_on_the_server_is_an_image_of_its_own(rclone: Rclone, tree: Path) -> None:
    rclone("copyto", tree / "a.img", "dav:a.img")
    rclone("copyto", "dav:a.img", "dav:b.img")
    images = rclone.folder.images()
    assert images["a.img"]["checksum"] == images["b.img"]["checksum"]
    assert images["a.img"]["id"] != images["b.img"]["id"]
    rclone("deletefile", "dav:a.img")
    assert rclone.folder.get("b.img") == (tree / "a.img").read_bytes()


def test_cat_reads_from_the_middle(rclone: Rclone) -> None:
    data = os.urandom(100_000)
    rclone.folder.put("a.img", data)
    assert rclone("cat", "--offset", "70000", "--count", "1000", "dav:a.img").stdout == data[70_000:71_000]
    assert rclone("cat", "--offset", "-10", "dav:a.img").stdout == data[-10:]
    assert rclone("cat", "dav:a.img").stdout == data


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_rcat_sends_what_has_no_size_yet(rclone: Rclone, size: int) -> None:
    data = os.urandom(size)
    rclone("rcat", "dav:piped.img", stdin=data)
    assert rclone.folder.get("piped.img") == data
    [(name, image)] = rclone.folder.images().items()
    assert (name, image["status"], image["size"]) == ("piped.img", "available", str(size))


def test_about_tells_how_much_room_there_is(rclone: Rclone) -> None:
    said = rclone("about", "dav:").out
    assert "Free:" in said


@contextmanager
def mounted(rclone: Rclone, processes: Processes, place: Path) -> Iterator[Path]:
    """Mount the folder with a cache for what is written, and wait at the end until all of it is uploaded."""
    point = place / "mount"
    point.mkdir()
    words: list[Argument] = ["rclone", "mount", "dav:", point, "--vfs-cache-mode", "writes", "--vfs-write-back", "0s"]
    process = processes.start([*words, "--cache-dir", place / "cache", "--dir-cache-time", "1s"], env=rclone.env)
    with watched(point, process):
        yield point
        run(["fusermount3", "-u", point])
        assert process.wait() == 0


@pytest.mark.needs("fuse")
def test_a_mount_of_rclone_is_written_to_and_read_from(
    owncloud: Rclone, processes: Processes, tree: Path, tmp_path: Path
) -> None:
    base, changes = bytearray(os.urandom(3_000_000)), random.Random(5)
    with mounted(owncloud, processes, tmp_path) as point:
        run(["timeout", "60", "cp", "-r", f"{tree}/.", point])
        with (point / "disk.img").open("wb") as file:
            file.write(base)
            for _ in range(20):
                place, piece = changes.randrange(2_900_000), changes.randbytes(5000)
                file.seek(place)
                file.write(piece)
                base[place : place + 5000] = piece
        eventually(lambda: "disk.img" in owncloud.folder.images())
        run(["timeout", "60", "mv", point / "a.img", point / "z.img"])
        run(["timeout", "60", "rm", point / "sub/(d).img"])
        assert (point / "disk.img").read_bytes() == base
    expected = contents(tree) | {"disk.img": bytes(base)}
    expected["z.img"] = expected.pop("a.img")
    expected.pop("sub/(d).img")
    assert {name: owncloud.folder.get(name) for name in owncloud.folder.images()} == expected
