# SPDX-License-Identifier: Apache-2.0
"""cadaver: WebDAV by hand, command by command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.dav_folder import DavFolder
from tests.support.processes import run

pytestmark = pytest.mark.needs("cadaver")


def cadaver(folder: DavFolder, place: Path, script: str) -> str:
    """Type these lines at cadaver, in a folder of the disk, and give all that it says."""
    return run(
        ["cadaver", f"{folder.url}/"], stdin=f"{script}\nquit\n".encode(), env={"HOME": str(place)}, cwd=place
    ).out


def test_files_go_in_and_come_out(folder: DavFolder, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "a.img").write_bytes(data)
    said = cadaver(folder, tmp_path, "put a.img\nmkcol sub\ncd sub\nput a.img b.img\nget b.img back.img\nls")
    assert said.count("succeeded.") == 5
    assert "failed" not in said
    assert (tmp_path / "back.img").read_bytes() == data
    assert folder.names() == ["a.img", "sub/"]
    assert folder.get("sub/b.img") == data


def test_files_are_moved_copied_and_deleted(folder: DavFolder, tmp_path: Path) -> None:
    folder.put("a.img", b"data")
    before = folder.images()["a.img"]["id"]
    said = cadaver(folder, tmp_path, "copy a.img b.img\nmove a.img c.img\nmkcol sub\nmove c.img sub/\nrmcol sub\nls")
    assert "failed" not in said
    assert set(folder.images()) == {"b.img"}
    assert folder.images()["b.img"]["id"] != before
    assert folder.names() == ["b.img"]


def test_metadata_are_shown_and_changed_as_properties(folder: DavFolder, tmp_path: Path) -> None:
    folder.put("a.img", b"data")
    script = """
    set namespace urn:glancefs:property
    propset a.img distro debian
    propget a.img distro
    set namespace urn:glancefs:image
    propset a.img type machine
    propget a.img
    propnames a.img
    set namespace urn:example
    propset a.img colour green
    propget a.img colour
    """
    said = cadaver(folder, tmp_path, script)
    assert "failed" not in said
    assert "Value of distro is: debian" in said
    assert "Value of colour is: green" in said
    image = folder.images()["a.img"]
    assert (image["type"], image["properties"]["distro"]) == ("machine", "debian")
    assert "colour" not in image["properties"]
    for shown in (
        "urn:glancefs:image type = machine",
        f"urn:glancefs:image id = {image['id']}",
        f"urn:glancefs:image checksum = {image['checksum']}",
        "urn:glancefs:property distro = debian",
    ):
        assert shown in said, shown
    assert "urn:glancefs:image checksum\n" in said
    cadaver(folder, tmp_path, "set namespace urn:glancefs:property\npropdel a.img distro")
    assert "distro" not in folder.images()["a.img"].get("properties", {})


def test_who_locks_may_go_on_and_others_may_not(folder: DavFolder, tmp_path: Path) -> None:
    folder.put("a.img", b"data")
    (tmp_path / "new.img").write_bytes(b"by who locked")
    said = cadaver(folder, tmp_path, "lock a.img\ndiscover a.img\nput new.img a.img\nunlock a.img\nshowlocks")
    assert "failed" not in said
    assert "Scope: exclusive  Type: write" in said
    assert "No owned locks." in said
    assert folder.get("a.img") == b"by who locked"
    assert folder.put("a.img", b"by others").status in {200, 204}
    token = folder.lock("a.img")
    said = cadaver(folder, tmp_path, "put new.img a.img\ndelete a.img\nmove a.img b.img\ndiscover a.img")
    assert said.count("423 Locked") >= 3
    assert token in said
    assert folder.get("a.img") == b"by others"
