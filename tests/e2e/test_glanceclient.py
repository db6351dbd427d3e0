# SPDX-License-Identifier: Apache-2.0
"""python-glanceclient, the command of another project, works with the server through ``/v1/``.

It asks with version 1 of its API; how it speaks is its own matter, which is the point of these tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.e2e.conftest import Serve
from tests.support.processes import Finished, product, run
from tests.support.servers import RunningServer

Glance = Callable[..., Finished]
DATA = os.urandom(300_000)


@pytest.fixture
def server(serve: Serve) -> RunningServer:
    """A server without images."""
    return serve()


@pytest.fixture
def glance(server: RunningServer) -> Glance:
    """Run ``glance COMMAND ...``; `stdin` is what it reads, None that there is nothing to read."""

    def command(*words: str | Path, stdin: bytes | None = None, expect: int | None = 0) -> Finished:
        where = ["--os-image-api-version", "1", "--os-image-url", server.url, "--os-auth-token", "x"]
        asked = [product("glance"), *where, *words]
        if stdin is not None:
            return run(asked, stdin=stdin, expect=expect)
        # It takes a standard input that is no terminal for data; one that is closed it lets be.
        return run(["sh", "-c", 'exec "$@" <&-', "-", *asked], expect=expect)

    return command


def told(finished: Finished) -> Mapping[str, str]:
    """Read a table of two columns."""
    rows = re.findall(r"^\| (.+?) +\| (.*?) *\|$", finished.out, re.MULTILINE)
    return {name.strip(): value for name, value in rows}


def listed(finished: Finished) -> list[str]:
    """Read the names in a list of images."""
    rows = [line.split("|")[1:-1] for line in finished.out.splitlines() if line.startswith("|")]
    return [row[1].strip() for row in rows[1:]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Something to upload."""
    file = tmp_path / "disk.raw"
    file.write_bytes(DATA)
    return file


def create(glance: Glance, file: Path, name: str = "debian") -> str:
    """Add an image from a file, and give its id."""
    formats = ["--disk-format", "raw", "--container-format", "bare"]
    said = told(glance("image-create", "--name", name, *formats, "--file", file, "--property", "distro=debian 12"))
    assert (said["status"], said["size"]) == ("active", str(len(DATA)))
    return said["id"]


def test_a_file_goes_in_and_comes_out(glance: Glance, file: Path, tmp_path: Path) -> None:
    image_id = create(glance, file)
    glance("image-download", image_id, "--file", tmp_path / "by id")
    assert (tmp_path / "by id").read_bytes() == DATA
    glance("image-download", "debian", "--file", tmp_path / "by name")
    assert (tmp_path / "by name").read_bytes() == DATA


def test_standard_input_goes_in(glance: Glance, tmp_path: Path) -> None:
    said = told(
        glance("image-create", "--name", "piped", "--disk-format", "raw", "--container-format", "bare", stdin=DATA)
    )
    assert said["status"] == "active"
    glance("image-download", said["id"], "--file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def test_an_image_is_shown_by_id_and_by_name(glance: Glance, file: Path) -> None:
    image_id = create(glance, file, name="mein Käse")
    assert listed(glance("image-list")) == ["mein Käse"]
    for word in (image_id, "mein Käse"):
        said = told(glance("image-show", word))
        # It encodes what it sends and does not decode what it gets: no server can make it show this name.
        assert unquote(said["name"]) == "mein Käse"
        assert said["Property 'distro'"] == "debian 12"
        assert (said["status"], said["is_public"], said["disk_format"]) == ("active", "False", "raw")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", said["created_at"])


def test_lists_are_complete_over_several_pages(glance: Glance, server: RunningServer) -> None:
    names = [f"image {number:02}" for number in range(25)]
    for name in names:
        headers = {"x-image-meta-name": name, "x-image-meta-type": "raw", "x-image-meta-is_public": "true"}
        server.ask("POST", "/images/", headers, b"x")
    assert listed(glance("image-list")) == names
    assert listed(glance("image-list", "--page-size", "7")) == names
    assert listed(glance("image-list", "--name", "image 03")) == ["image 03"]
    assert listed(glance("image-list", "--size-min", "2")) == []
    assert listed(glance("image-list", "--status", "active", "--sort-dir", "desc"))[0] == "image 24"


def test_own_private_images_are_listed(glance: Glance, file: Path) -> None:
    create(glance, file, name="private")
    assert listed(glance("image-list")) == ["private"]


def test_metadata_change(glance: Glance, file: Path) -> None:
    image_id = create(glance, file)
    glance("image-update", image_id, "--name", "renamed", "--is-public", "True", "--min-ram", "512")
    said = told(glance("image-show", image_id))
    assert (said["name"], said["is_public"], said["min_ram"]) == ("renamed", "True", "512")
    assert said["Property 'distro'"] == "debian 12"
    glance("image-update", image_id, "--purge-props", "--property", "arch=x86_64")
    said = told(glance("image-show", image_id))
    assert said["Property 'arch'"] == "x86_64"
    assert "Property 'distro'" not in said


def test_data_come_later_into_a_queued_image(glance: Glance, server: RunningServer, file: Path, tmp_path: Path) -> None:
    headers = {"x-image-meta-name": "later", "x-image-meta-disk_format": "raw"}
    assert server.ask("POST", "/v1/images", headers).image["status"] == "queued"
    glance("image-update", "later", "--file", file)
    assert told(glance("image-show", "later"))["status"] == "active"
    glance("image-download", "later", "--file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def test_images_are_deleted(glance: Glance, file: Path) -> None:
    image_id = create(glance, file)
    create(glance, file, name="other")
    glance("image-delete", image_id, "other")
    assert listed(glance("image-list")) == []
    refused = glance("image-show", image_id, expect=1)
    assert "No image with a name or ID of" in refused.err


def test_a_protected_image_is_not_deleted(glance: Glance, file: Path) -> None:
    image_id = create(glance, file)
    glance("image-update", image_id, "--is-protected", "True")
    refused = glance("image-delete", image_id)
    assert "protected" in refused.out + refused.err
    assert told(glance("image-show", image_id))["status"] == "active"
    glance("image-update", image_id, "--is-protected", "False")
    glance("image-delete", image_id)


def test_an_id_that_is_taken_is_refused(glance: Glance, file: Path) -> None:
    words = ["image-create", "--id", "7", "--name", "n", "--disk-format", "raw", "--container-format", "bare"]
    glance(*words, "--file", file)
    assert "taken" in glance(*words, "--file", file, expect=1).err


def test_members_are_none_and_do_not_break_it(glance: Glance, file: Path) -> None:
    assert glance("member-list", "--image-id", create(glance, file)).err == ""
