# SPDX-License-Identifier: Apache-2.0
"""curl: ranges, conditions, uploads with and without a length, and bodies that are only sent when they are wanted."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.support.dav_folder import DavFolder
from tests.support.processes import Argument, run

pytestmark = pytest.mark.needs("curl")
LARGE = 8_000_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that curl asks permission to send."""
    file = tmp_path / "source.img"
    file.write_bytes(os.urandom(LARGE))
    return file


def curl(*words: Argument, shown: str = "%{http_code}", stdin: bytes = b"") -> str:
    """Ask, throw the body away unless it goes to a file, and give what ``shown`` says of the answer."""
    output = [] if "-o" in words else ["-o", os.devnull]
    return run(["curl", "-sS", *output, "-w", shown, *words], stdin=stdin).out


def test_a_file_goes_in_with_its_length_and_comes_out(folder: DavFolder, source: Path, tmp_path: Path) -> None:
    assert curl("-T", source, f"{folder.url}/a.img") == "201"
    assert curl("-T", source, f"{folder.url}/") == "201"
    assert curl("-o", tmp_path / "back", f"{folder.url}/a.img") == "200"
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert folder.names() == ["a.img", "source.img"]


def test_what_comes_through_a_pipe_has_no_length(folder: DavFolder, source: Path) -> None:
    assert curl("-T", "-", f"{folder.url}/a.img", stdin=source.read_bytes()) == "201"
    assert folder.get("a.img") == source.read_bytes()
    assert curl("-T", "-", f"{folder.url}/a.img", stdin=b"") == "204"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-9", 0, 10), ("100-", 100, 1000), ("-5", 995, 1000), ("990-2000", 990, 1000), ("0-999", 0, 1000)],
)
def test_a_part_of_a_file(folder: DavFolder, tmp_path: Path, asked: str, start: int, stop: int) -> None:
    data = os.urandom(1000)
    folder.put("a.img", data)
    assert curl("-r", asked, "-D", tmp_path / "head", "-o", tmp_path / "part", f"{folder.url}/a.img") == "206"
    assert (tmp_path / "part").read_bytes() == data[start:stop]
    assert f"content-range: bytes {start}-{stop - 1}/1000" in (tmp_path / "head").read_text().lower()


def test_a_part_beyond_the_end_is_refused(folder: DavFolder, tmp_path: Path) -> None:
    folder.put("a.img", b"data")
    assert curl("-r", "4-", "-D", tmp_path / "head", f"{folder.url}/a.img") == "416"
    assert "content-range: bytes */4" in (tmp_path / "head").read_text().lower()


def test_a_download_that_broke_off_is_taken_up(folder: DavFolder, source: Path, tmp_path: Path) -> None:
    curl("-T", source, f"{folder.url}/a.img")
    (tmp_path / "got").write_bytes(source.read_bytes()[:5_000_000])
    shown = "%{http_code} %{size_download}"
    assert curl("-C", "-", "-o", tmp_path / "got", f"{folder.url}/a.img", shown=shown) == f"206 {LARGE - 5_000_000}"
    assert (tmp_path / "got").read_bytes() == source.read_bytes()


def test_only_what_was_expected_is_replaced(folder: DavFolder, source: Path) -> None:
    url = f"{folder.url}/a.img"
    assert curl("-T", source, "-H", 'If-Match: "something"', url) == "412"
    assert curl("-T", source, "-H", "If-Match: *", url) == "412"
    assert folder.images() == {}
    assert curl("-T", source, "-H", "If-None-Match: *", url) == "201"
    assert curl("-T", source, "-H", "If-None-Match: *", url) == "412"
    etag = folder.ask("HEAD", "a.img").headers["etag"]
    assert curl("-T", source, "-H", 'If-Match: "something"', url) == "412"
    assert curl("-T", "-", "-H", f"If-Match: {etag}", url, stdin=b"new") == "204"
    assert folder.get("a.img") == b"new"
    assert curl("-T", source, "-H", f"If-Match: {etag}", url) == "412"
    assert curl("-X", "DELETE", "-H", f"If-Match: {etag}", url) == "412"
    assert folder.get("a.img") == b"new"


def test_what_has_not_changed_is_not_sent_again(folder: DavFolder, tmp_path: Path) -> None:
    folder.put("a.img", b"data")
    url, shown = f"{folder.url}/a.img", "%{http_code} %{size_download}"
    assert curl("--etag-save", tmp_path / "etag", url, shown=shown) == "200 4"
    assert curl("--etag-compare", tmp_path / "etag", url, shown=shown) == "304 0"
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    assert curl("-H", f"If-Modified-Since: {later}", url, shown=shown) == "304 0"
    folder.put("a.img", b"other data")
    assert curl("--etag-compare", tmp_path / "etag", url, shown=shown) == "200 10"


def test_a_body_that_would_be_refused_is_never_sent(folder: DavFolder, source: Path) -> None:
    url, shown = f"{folder.url}/a.img", "%{http_code} %{size_upload}"
    wait = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"]
    assert curl("-T", source, *wait, "-H", "If-Match: *", url, shown=shown) == "412 0"
    assert curl("-T", source, *wait, f"{folder.url}/no/such/folder/a.img", shown=shown) == "409 0"
    token = folder.lock("a.img")
    assert curl("-T", source, *wait, url, shown=shown) == "423 0"
    assert curl("-T", source, *wait, "-H", f"If: (<{token}>)", url) in {"200", "201", "204"}
    assert folder.get("a.img") == source.read_bytes()


def test_who_may_not_write_is_told_before_sending(guarded_folder: DavFolder, source: Path) -> None:
    shown = "%{http_code} %{size_upload}"
    wait = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"]
    assert curl("-T", source, *wait, f"{guarded_folder.url}/a.img", shown=shown) == "401 0"
    assert curl("-T", source, *wait, "-u", "alice:wrong", f"{guarded_folder.url}/a.img", shown=shown) == "401 0"
    assert curl("-T", source, *wait, "-u", "alice:wonderland", f"{guarded_folder.url}/a.img") == "201"
    assert guarded_folder.images()["a.img"]["owner"] == "alice"
