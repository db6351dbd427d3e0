# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a mount of a server is one line that says what to do.

Threading: none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from glancefs.cli import main
from tests.support.cli import ServeFolder
from tests.support.processes import free_port, product, run


@pytest.fixture
def point(home: Path) -> Path:
    """A free place."""
    place = home / "point"
    place.mkdir()
    return place


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["mount", *words])
    _, err = capfd.readouterr()
    (line,) = err.splitlines()
    return status, line


def test_a_password_in_the_url_is_refused_and_not_told_again(point: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for url in ("https://alice:secret@images.example.org/", "http://alice@images.example.org"):
        status, line = refused(capfd, url, str(point))
        assert status == 2
        assert "credentials=FILE" in line
        assert "secret" not in line


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("user=alice", "credentials say"),
        ("timeout=0", "timeout takes seconds, one at the least"),
        ("credentials=/nowhere/file", "can't be read"),
        ("credential=file", "did you mean credentials"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    point: Path, capfd: pytest.CaptureFixture[str], option: str, told: str
) -> None:
    status, line = refused(capfd, "https://images.example.org/", str(point), "--check", "-o", option)
    assert status == 2
    assert told in line


@pytest.mark.parametrize("option", ["credentials=f", "cacert=f", "staging=d", "cache=d"])
def test_what_is_for_servers_is_refused_for_a_folder(
    point: Path, home: Path, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    status, line = refused(capfd, str(home), str(point), "--check", "-o", option)
    assert status == 2
    assert "is for mounts of a server" in line


def test_what_is_well_said_passes_the_check_without_a_server(point: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    assert main(["mount", url, str(point), "--check", "-o", "timeout=5,ro,public"]) == 0


@pytest.mark.needs("fuse")
def test_a_server_that_can_not_be_mounted_is_told_in_one_line(point: Path, home: Path, served: ServeFolder) -> None:
    url = served(home / "data")
    for source, status, told in (
        (f"{url}/images", 2, "of an earlier version, which serves no mounts"),
        (f"http://127.0.0.1:{free_port()}", 5, "can't be reached"),
    ):
        err = run([product(), "mount", source, point, "-o", "timeout=1"], expect=status).err
        assert told in err
        assert len(err.splitlines()) == 1
