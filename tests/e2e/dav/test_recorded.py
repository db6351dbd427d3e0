# SPDX-License-Identifier: Apache-2.0
"""Windows Explorer and macOS Finder, by the requests that they send."""

from __future__ import annotations

import os
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest

from tests.e2e.dav.recorded import (
    WINDOWS_TIME,
    Recorded,
    finder,
    finder_connects,
    finder_copies,
    windows,
    windows_connects,
    windows_copies,
)
from tests.support.dav_folder import DavFolder
from tests.support.rawhttp import RawClient

DATA = os.urandom(300_000)
GOOD = {200, 201, 204, 207}
LITTER = ("._a.img", ".DS_Store", "._.DS_Store")


@pytest.fixture
def explorer(folder: DavFolder) -> Iterator[Recorded]:
    """The client of Windows, on one connection."""
    with RawClient((folder.server.host, folder.server.port)) as raw:
        yield windows(folder, raw)


@pytest.fixture
def mac(folder: DavFolder) -> Iterator[Recorded]:
    """The client of macOS, on one connection."""
    with RawClient((folder.server.host, folder.server.port)) as raw:
        yield finder(folder, raw)


def test_windows_finds_webdav_from_the_root_of_the_server_down(explorer: Recorded) -> None:
    options, *found = windows_connects(explorer)
    assert options.status == 200
    assert "2" in options.headers["dav"].replace(" ", "").split(",")
    assert options.headers["ms-author-via"] == "DAV"
    assert {"PROPFIND", "LOCK", "PUT", "PROPPATCH"} <= set(options.headers["allow"].replace(" ", "").split(","))
    assert [answer.status for answer in found] == [207] * len(found)
    assert all(b"collection" in answer.body for answer in found)


def test_windows_copies_a_file_in_and_it_is_one_image(explorer: Recorded, folder: DavFolder) -> None:
    said = windows_copies(explorer, folder.at("a.img"), DATA)
    assert said.pop("look").status == 404
    assert {step: answer.status for step, answer in said.items() if answer.status not in GOOD} == {}
    for step in ("times", "times again"):
        assert b"200 OK" in said[step].body, said[step]
        assert b" 403 " not in said[step].body, said[step]
    [(name, image)] = folder.images().items()
    assert (name, image["status"], image["size"]) == ("a.img", "available", str(len(DATA)))
    assert folder.get("a.img") == DATA
    # Nothing is locked any more, and the time is the one that Windows said.
    assert folder.put("a.img", b"other").status in {200, 204}
    assert folder.names() == ["a.img"]


def test_the_time_that_windows_says_is_the_file_s(explorer: Recorded, folder: DavFolder) -> None:
    windows_copies(explorer, folder.at("a.img"), DATA)
    said = folder.properties("a.img")["{DAV:}getlastmodified"]
    assert parsedate_to_datetime(said) == parsedate_to_datetime(WINDOWS_TIME)


def test_finder_sees_a_volume_that_it_may_write_to(mac: Recorded) -> None:
    said = finder_connects(mac)
    assert "2" in said["options"].headers["dav"].replace(" ", "").split(",")
    assert b"quota-available-bytes>" in said["quota"].body
    assert {name: answer.status for name, answer in said.items() if name.startswith(".") and answer.status != 404} == {}
    assert [said[name].status for name in ("volume", "quota", "list")] == [207, 207, 207]


def test_finder_copies_a_file_in_and_it_is_one_image(mac: Recorded, folder: DavFolder) -> None:
    said = finder_copies(mac, folder.at("a.img"), DATA)
    assert said.pop("look").status == 404
    assert {step: answer.status for step, answer in said.items() if answer.status not in GOOD} == {}
    assert str(len(DATA)).encode() in said["after"].body
    [(name, image)] = folder.images().items()
    assert (name, image["status"], image["size"]) == ("a.img", "available", str(len(DATA)))
    assert folder.get("a.img") == DATA


def test_the_litter_of_finder_is_kept_for_it_and_never_becomes_an_image(mac: Recorded, folder: DavFolder) -> None:
    finder_copies(mac, folder.at("a.img"), DATA)
    before = set(folder.images())
    for name in LITTER:
        said = finder_copies(mac, folder.at(name), b"Mac OS X        " * 100)
        assert said.pop("look").status == 404
        assert {step: answer.status for step, answer in said.items() if answer.status not in GOOD} == {}
    assert set(folder.images()) == before == {"a.img"}
    for name in LITTER:
        assert folder.ask("DELETE", name).status == 204
    assert folder.names() == ["a.img"]


def test_a_chunked_upload_of_another_length_than_it_announced_is_refused(mac: Recorded, folder: DavFolder) -> None:
    framed = f"X-Expected-Entity-Length: {len(DATA) + 1}\r\nTransfer-Encoding: Chunked\r\n"
    assert mac.ask_chunked("PUT", folder.at("a.img"), framed, DATA).status == 400
    assert folder.images() == {}
    assert folder.ask("GET", "a.img").status == 404


def test_a_lock_on_a_name_without_a_file_reserves_it(folder: DavFolder) -> None:
    token = folder.lock("new.img")
    assert folder.put("new.img", b"by somebody else").status == 423
    assert folder.put("new.img", DATA, {"If": f"(<{token}>)"}).status in {200, 201, 204}
    assert folder.unlock("new.img", token).status == 204
    assert folder.get("new.img") == DATA
    assert set(folder.images()) == {"new.img"}
