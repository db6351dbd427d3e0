# SPDX-License-Identifier: Apache-2.0
"""Staged files that processes share: what one does the others see, and nothing of it is kept for ever."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from glancefs.errors import NotAuthenticated, PathTaken
from glancefs.staging import SharedArea, SharedFiles, StagedUpload, sweep_shared

OLD = time.time() - timedelta(days=8).total_seconds()


def begun(area: SharedArea, path: str, data: bytes = b"data", user: str = "alice") -> SharedFiles:
    """Put a file as one request does; give the next request's view."""
    files = area.of(user)
    upload = files.create(path)
    upload.write_at(0, data)
    files.show(path, upload, replace=True)
    files.close()
    return area.of(user)


def read(upload: StagedUpload | None) -> bytes | None:
    return None if upload is None else upload.read_at(0, upload.size)


@pytest.fixture
def area(tmp_path: Path) -> SharedArea:
    return SharedArea(folder=tmp_path)


def test_another_process_sees_what_is_there(tmp_path: Path, area: SharedArea) -> None:
    begun(area, "a/.f")
    other = SharedArea(folder=tmp_path)
    files = other.of("alice")
    assert read(files.find("a/.f")) == b"data"
    assert [name for name, _ in files.in_folder("a")] == [".f"]
    assert list(files.folders()) == ["a"]
    assert other.of("bob").find("a/.f") is None
    files.close()


def test_nobody_has_no_files(area: SharedArea) -> None:
    files = area.of(None)
    assert files.find(".f") is None
    assert list(files.folders()) == []
    assert list(files.in_folder("")) == []
    with pytest.raises(NotAuthenticated):
        files.create(".f")


def test_a_path_has_one_file(area: SharedArea) -> None:
    files = begun(area, ".f", b"first")
    second = files.create(".f")
    with pytest.raises(PathTaken):
        files.show(".f", second)
    second.write_at(0, b"second")
    files.show(".f", second, replace=True)
    assert read(files.find(".f")) == b"second"
    files.close()


def test_hiding_leaves_what_somebody_else_put_there(area: SharedArea) -> None:
    files = begun(area, ".f", b"first")
    first = files.find(".f")
    assert first is not None
    begun(area, ".f", b"second").close()
    files.hide(".f", first)
    assert read(area.of("alice").find(".f")) == b"second"
    files.close()


def test_a_name_whose_file_is_gone_is_nothing(tmp_path: Path, area: SharedArea) -> None:
    files = begun(area, ".f")
    for file in tmp_path.glob("*/files/*"):
        file.unlink()
    assert list(files.in_folder("")) == []
    assert files.find(".f") is None
    assert list(files.folders()) == []


def test_a_listing_holds_no_descriptors(area: SharedArea) -> None:
    for number in range(20):
        begun(area, f".f{number}").close()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names are not looked at
    files = area.of("alice")
    assert [(name, upload.size) for name, upload in files.in_folder("")].count((".f7", 4)) == 1
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - the names are not looked at


def test_what_nobody_touched_is_swept(tmp_path: Path, area: SharedArea) -> None:
    begun(area, "a/.old").close()
    begun(area, "b/.new").close()
    [old] = [file for file in tmp_path.glob("*/files/*.json") if ".old" in file.read_text()]
    for file in (old, old.with_suffix("")):
        os.utime(file, (OLD, OLD))
    size = 4 + old.stat().st_size
    assert sweep_shared(tmp_path) == (1, size)
    files = area.of("alice")
    assert files.find("a/.old") is None
    assert read(files.find("b/.new")) == b"data"
    files.close()


def test_names_go_when_their_time_has_come(tmp_path: Path, area: SharedArea) -> None:
    begun(area, "a/.f").close()
    for file in tmp_path.glob("*/files/*"):
        file.unlink()
    for link in tmp_path.glob("*/names/*/*"):
        os.utime(link, (OLD, OLD), follow_symlinks=False)
    sweep_shared(tmp_path, keep_for=timedelta(days=7))
    [names] = tmp_path.glob("*/names/*")
    os.utime(names, (OLD, OLD))
    sweep_shared(tmp_path)
    assert list(tmp_path.glob("*/names/*")) == []
    begun(area, "a/.f").close()


def test_a_move_that_was_broken_off_shows_the_file_where_its_name_is(area: SharedArea) -> None:
    files = begun(area, ".f")
    upload = files.find(".f")
    assert upload is not None
    files.show(".g", upload)
    files.hide(".f", upload)
    files.close()
    moved = area.of("alice").find(".g")
    assert moved is not None
    assert moved.path == ".g"
    moved.close()
