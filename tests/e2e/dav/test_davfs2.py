# SPDX-License-Identifier: Apache-2.0
"""davfs2: the door as a file system of Linux, with its cache on the disk and its locks on the server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.dav.conftest import own_folder
from tests.e2e.dav.watching import leashed
from tests.support.dav_folder import DavFolder
from tests.support.mounting import eventually
from tests.support.processes import Argument, Finished, run
from tests.support.servers import RunningServer

pytestmark = pytest.mark.needs("davfs2", "fuse", "root")

# Since Linux 6.16 a kernel refuses what davfs2 answers with a buffer of its default size.
_CONFIG = """
buf_size 64
ask_auth 0
use_locks 1
cache_dir {cache}
dir_refresh 1
file_refresh 1
delay_upload {delay}
"""
_PIDS = Path("/run/mount.davfs")
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Davfs:
    """A mounted folder."""

    folder: DavFolder
    point: Path

    def shell(self, script: str, *words: Argument) -> Finished:
        """Run a script of bash in the mount."""
        return run(
            ["timeout", "--kill-after=5", "60", "bash", "-ec", script, "bash", *words], cwd=self.point, timeout=80
        )

    def umount(self) -> None:
        """Take the mount away as an operator does, which waits until all is uploaded."""
        run(["timeout", "--kill-after=5", "60", "umount", self.point], timeout=80)


@contextmanager
def mounted(folder: DavFolder, place: Path, *, delay: int) -> Iterator[Davfs]:
    """Mount a folder; what is closed is uploaded after this many seconds."""
    point, cache, config = place / "mount", place / "cache", place / "davfs2.conf"
    # Where the daemon notes itself; one that was killed leaves its note, which is in the way of the next.
    note = _PIDS / f"{str(point)[1:].replace('/', '-')}.pid"
    note.unlink(missing_ok=True)
    point.mkdir(parents=True)
    cache.mkdir()
    config.write_text(_CONFIG.format(cache=cache, delay=delay))
    # The daemon becomes another user, who could not come to this folder without root's right to pass.
    words: list[Argument] = ["setpriv", "--securebits", "+no_setuid_fixup", "mount.davfs", "-o", f"conf={config}"]
    run(["timeout", "--kill-after=5", "30", *words, folder.url, point], timeout=40)
    # It is a moment after the mount is there.
    eventually(lambda: note.exists() and note.read_text().strip(), patience=_PATIENCE)
    pid = int(note.read_text())
    try:
        with leashed(point, pid):
            made = Davfs(folder=folder, point=point)
            yield made
            if point.is_mount():
                made.umount()
            eventually(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        note.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def davfs(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Davfs]:
    """One mount for the tests of this module, which uploads at once."""
    with mounted(own_folder(server, "davfs2"), tmp_path_factory.mktemp("davfs2"), delay=0) as made:
        yield made


def uploaded(davfs: Davfs, name: str, size: int) -> None:
    """Wait until an image is there as a whole."""
    eventually(lambda: davfs.folder.images().get(name, {}).get("size") == str(size), patience=_PATIENCE)


def test_a_file_goes_in_and_comes_out_by_cp(davfs: Davfs, tmp_path: Path) -> None:
    source = tmp_path / "source.img"
    source.write_bytes(os.urandom(3_000_000))
    davfs.shell('mkdir -p cp/sub; cp "$1" cp/sub/a.img', source)
    uploaded(davfs, "cp/sub/a.img", 3_000_000)
    assert davfs.folder.get("cp/sub/a.img") == source.read_bytes()
    davfs.shell('cp cp/sub/a.img "$1"', tmp_path / "back.img")
    assert (tmp_path / "back.img").read_bytes() == source.read_bytes()


def test_what_others_put_is_seen_and_read(davfs: Davfs) -> None:
    data = os.urandom(200_000)
    davfs.folder.put("put.img", data)
    eventually((davfs.point / "put.img").exists, patience=_PATIENCE)
    assert (davfs.point / "put.img").read_bytes() == data


def test_files_are_renamed_and_removed(davfs: Davfs) -> None:
    davfs.shell("mkdir mv; printf first >mv/a.img")
    uploaded(davfs, "mv/a.img", 5)
    before = davfs.folder.images()["mv/a.img"]["id"]
    davfs.shell("mv mv/a.img mv/b.img; mkdir mv/sub; mv mv/b.img mv/sub/c.img")
    assert davfs.folder.images()["mv/sub/c.img"]["id"] == before
    davfs.shell("rm -r mv")
    assert "mv/" not in davfs.folder.names()
    assert not any(name.startswith("mv/") for name in davfs.folder.images())


@pytest.mark.needs("rsync")
def test_rsync_brings_a_tree_and_later_what_has_changed(davfs: Davfs, tree: Path) -> None:
    davfs.shell('mkdir rsync; rsync -r "$1/" rsync/', tree)
    sizes = {str(path.relative_to(tree)): path.stat().st_size for path in tree.rglob("*") if path.is_file()}
    for name, size in sizes.items():
        uploaded(davfs, f"rsync/{name}", size)
    before = davfs.folder.images()
    (tree / "a.img").write_bytes(b"another size")
    said = davfs.shell('rsync -r --size-only --stats "$1/" rsync/', tree).out
    assert re.search(r"files transferred: 1$", said, re.MULTILINE), said
    uploaded(davfs, "rsync/a.img", 12)
    after = davfs.folder.images()
    assert {name for name in after if name.startswith("rsync/")} == {f"rsync/{name}" for name in sizes}
    assert after["rsync/sub/b c.img"]["id"] == before["rsync/sub/b c.img"]["id"]
    davfs.shell('diff -r "$1" rsync', tree)


def test_a_file_that_is_open_for_writing_is_locked_for_others(davfs: Davfs) -> None:
    with (davfs.point / "held.img").open("wb") as file:
        file.write(b"by davfs2")
        assert davfs.folder.put("held.img", b"by others").status == 423
    uploaded(davfs, "held.img", len(b"by davfs2"))
    eventually(lambda: davfs.folder.put("held.img", b"by others").status in {200, 204}, patience=_PATIENCE)
    assert davfs.folder.get("held.img") == b"by others"


def test_df_tells_how_much_room_there_is(davfs: Davfs) -> None:
    free, size = map(int, davfs.shell("df --output=avail,size -B1 . | tail -n 1").out.split())
    disk = os.statvfs(davfs.folder.server.data)
    assert free <= size
    assert abs(free - disk.f_bavail * disk.f_frsize) < 1 << 30


def test_umount_waits_until_all_is_uploaded(folder: DavFolder, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    with mounted(folder, tmp_path, delay=3600) as davfs:
        (davfs.point / "late.img").write_bytes(data)
        # The lock that davfs2 takes makes an image that waits for its data.
        assert folder.images()["late.img"]["status"] == "queued"
        davfs.umount()
    assert folder.get("late.img") == data
    assert folder.images()["late.img"]["status"] == "available"
