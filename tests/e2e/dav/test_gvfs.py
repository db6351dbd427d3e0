# SPDX-License-Identifier: Apache-2.0
"""GNOME: the folder as its file manager sees it, by gvfs, on a bus of the test's own and without a desktop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.dav_folder import DavFolder
from tests.support.processes import Argument, Finished, run

pytestmark = pytest.mark.needs("gvfs")

Gio = Callable[..., Finished]


@pytest.fixture
def gio(tmp_path: Path) -> Gio:
    """Run a script in a session of GNOME's: a bus, and the daemons that it starts; all of them end with it."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    env = {
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "GVFS_DISABLE_FUSE": "1",
        "GVFS_REMOTE_VOLUME_MONITOR_IGNORE": "1",
        "GIO_USE_VOLUME_MONITOR": "unix",
    }

    def session(script: str, *words: Argument) -> Finished:
        command: list[Argument] = ["timeout", "--kill-after=5", "60", "dbus-run-session", "--", "bash", "-ec", script]
        return run([*command, "bash", *words], env=env, cwd=tmp_path, timeout=80)

    return session


def test_a_folder_is_opened_listed_and_copied_from_and_to(folder: DavFolder, gio: Gio, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    folder.put("there.img", data)
    (tmp_path / "here.img").write_bytes(data[::-1])
    where = folder.url.replace("http:", "dav:")
    script = """
    gio mount "$1"
    gio list -l "$1" | sed 's/^/listed: /'
    gio copy "$1/there.img" came.img
    gio mkdir "$1/sub"
    gio copy here.img "$1/sub/went (1).img"
    gio info -a standard::size,time::modified "$1/sub/went (1).img"
    gio rename "$1/sub/went (1).img" "renamed ü.img"
    gio move "$1/sub/renamed ü.img" "$1/moved.img"
    gio remove "$1/sub"
    gio mount -u "$1"
    """
    said = gio(script, where).out
    assert f"listed: there.img\t{len(data)}\t(regular)" in said
    assert f"standard::size: {len(data)}" in said
    assert (tmp_path / "came.img").read_bytes() == data
    assert folder.names() == ["moved.img", "there.img"]
    assert folder.get("moved.img") == data[::-1]
    assert {image["status"] for image in folder.images().values()} == {"available"}


def test_a_file_is_replaced_by_saving_over_it(folder: DavFolder, gio: Gio, tmp_path: Path) -> None:
    folder.put("a.img", b"first")
    (tmp_path / "new.img").write_bytes(b"second")
    where = folder.url.replace("http:", "dav:")
    gio('gio mount "$1"; gio copy new.img "$1/a.img"; gio save "$1/b.img" <new.img; gio mount -u "$1"', where)
    assert folder.get("a.img") == b"second"
    assert folder.get("b.img") == b"second"
    assert folder.names() == ["a.img", "b.img"]
