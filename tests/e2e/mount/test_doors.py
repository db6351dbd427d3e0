# SPDX-License-Identifier: Apache-2.0
"""The same images through the mount, over REST, and on a second mount: changes are seen within a second."""

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from glancefs.model import ImageChanges, NewImage, image_type
from glancefs.registries.base import ImageQuery
from tests.support.mounting import LOCAL, Mount, Mounts, eventually
from tests.support.servers import RunningServer

PROMISE = "What another door changes is seen within a second; who has a removed image open goes on reading it."
Serve = Callable[..., RunningServer]


@pytest.fixture
def served(mounts: Mounts, serve: Serve, tmp_path: Path) -> tuple[Mount, RunningServer]:
    """A mount and a server of the same data folder."""
    mounted = mounts.mount()
    return mounted, serve(data=mounted.data)


def post(server: RunningServer, name: str, data: bytes, **fields: str) -> str:
    headers = {"x-image-meta-name": name, "x-image-meta-type": "raw", "content-type": "application/octet-stream"}
    headers |= {f"x-image-meta-{key}": value for key, value in fields.items()}
    reply = server.ask("POST", "/images/", headers, data)
    assert reply.status in {200, 201}
    return str(reply.image["id"])


@pytest.mark.promise(PROMISE)
def test_an_image_posted_over_rest_appears_as_a_file(served: tuple[Mount, RunningServer]) -> None:
    mounted, server = served
    assert not (mounted / "folder/a.raw").exists()
    data = os.urandom(2_000_000)
    post(server, "folder/a.raw", data)
    eventually((mounted / "folder/a.raw").exists)
    assert (mounted / "folder/a.raw").read_bytes() == data
    assert [path.name for path in mounted.point.iterdir()] == ["folder"]


@pytest.mark.promise(PROMISE)
@pytest.mark.needs("getfattr")
def test_what_comes_into_a_new_folder_in_other_ways_is_found(served: tuple[Mount, RunningServer]) -> None:
    mounted, server = served
    (mounted / "new").mkdir()
    (mounted / "new/a.raw").write_bytes(b"data")
    assert not (mounted / "new/b.raw").exists()
    post(server, "new/b.raw", b"posted")
    eventually((mounted / "new/b.raw").exists)
    mounted.run("setfattr", "-n", "user.glance.name", "-v", "new/c.raw", "new/b.raw")
    assert (mounted / "new/c.raw").read_bytes() == b"posted"
    (mounted / "d.raw").write_bytes(b"moved")
    (mounted / "empty").mkdir()
    (mounted / "d.raw").rename(mounted / "empty/d.raw")
    (mounted / "empty").rename(mounted / "full")
    assert (mounted / "full/d.raw").read_bytes() == b"moved"
    (mounted / "full/d.raw").unlink()
    assert not (mounted / "full/d.raw").exists()


def test_a_file_that_was_closed_is_available_over_rest_at_once(served: tuple[Mount, RunningServer]) -> None:
    mounted, server = served
    (mounted / "a.raw").write_bytes(b"data")
    images = server.ask("GET", "/images/?is_public=none").json["images"]
    assert [(image["name"], image["size"]) for image in images] == [("a.raw", "4")]
    assert server.ask("GET", "/images/").json["images"] == []
    mounted.run("setfattr", "-n", "user.glance.is_public", "-v", "true", "a.raw")
    assert [image["name"] for image in server.ask("GET", "/images/").json["images"]] == ["a.raw"]
    assert server.ask("GET", f"/images/{images[0]['id']}").body == b"data"


@pytest.mark.needs("getfattr")
def test_metadata_set_at_one_door_show_at_the_other(served: tuple[Mount, RunningServer]) -> None:
    mounted, server = served
    image_id = post(server, "a.raw", b"data")
    eventually((mounted / "a.raw").exists)
    mounted.run("setfattr", "-n", "user.glance.property.distro", "-v", "debian", "a.raw")
    assert server.ask("HEAD", f"/images/{image_id}").headers["x-image-meta-property-distro"] == "debian"
    server.ask("PUT", f"/images/{image_id}", {"x-image-meta-type": "machine", "x-image-meta-property-distro": "arch"})
    shown = mounted.run("getfattr", "-d", "a.raw").out
    eventually(lambda: 'user.glance.type="machine"' in mounted.run("getfattr", "-d", "a.raw").out)
    assert "user.glance.property.distro" in shown


@pytest.mark.promise(PROMISE)
def test_an_image_deleted_over_rest_vanishes_and_readers_go_on(served: tuple[Mount, RunningServer]) -> None:
    mounted, server = served
    data = os.urandom(5_000_000)
    image_id = post(server, "a.raw", data)
    eventually((mounted / "a.raw").exists)
    with (mounted / "a.raw").open("rb") as reader:
        assert reader.read(10) == data[:10]
        assert server.ask("DELETE", f"/images/{image_id}").status in {200, 204}
        eventually(lambda: not (mounted / "a.raw").exists())
        assert reader.read() == data[10:]
    assert list(mounted.point.iterdir()) == []


def test_a_queued_image_gets_its_data_by_a_copy_onto_it(served: tuple[Mount, RunningServer], tmp_path: Path) -> None:
    mounted, server = served
    reply = server.ask("POST", "/images/", {"x-image-meta-name": "a.raw", "x-image-meta-type": "raw"})
    image_id = reply.image["id"]
    eventually((mounted / "a.raw").exists)
    (tmp_path / "new").write_bytes(b"brought by cp")
    mounted.run("cp", tmp_path / "new", "a.raw")
    assert server.ask("GET", f"/images/{image_id}").body == b"brought by cp"
    assert len(mounted.images()) == 1


def test_a_queued_image_that_gets_its_data_over_rest_shows_them(served: tuple[Mount, RunningServer]) -> None:
    mounted, server = served
    reply = server.ask("POST", "/images/", {"x-image-meta-name": "a.raw", "x-image-meta-type": "raw"})
    eventually((mounted / "a.raw").exists)
    assert (mounted / "a.raw").read_bytes() == b""
    server.ask("PUT", f"/images/{reply.image['id']}", {"content-type": "application/octet-stream"}, b"came later")
    eventually(lambda: (mounted / "a.raw").read_bytes() == b"came later")


def test_two_mounts_see_each_other_s_changes(mounts: Mounts) -> None:
    here, there = mounts.mount(), mounts.mount()
    assert not (there / "d/a").exists()
    (here / "d").mkdir()
    (here / "d/a").write_bytes(b"one")
    eventually((there / "d/a").exists)
    assert (there / "d/a").read_bytes() == b"one"
    (there / "d/a").write_bytes(b"three")
    eventually(lambda: (here / "d/a").read_bytes() == b"three")
    (here / "d/a").rename(here / "b")
    eventually((there / "b").exists)
    eventually(lambda: not (there / "d/a").exists())
    (there / "d").rmdir()
    eventually(lambda: not (here / "d").exists())
    (there / "b").unlink()
    eventually(lambda: not (here / "b").exists())
    assert here.images() == []


def test_a_folder_renamed_on_one_mount_is_renamed_on_the_other(mounts: Mounts) -> None:
    here, there = mounts.mount(), mounts.mount()
    here.shell("mkdir -p a/b && echo data >a/b/c")
    eventually((there / "a/b/c").exists)
    here.run("mv", "a", "z")
    eventually((there / "z/b/c").exists)
    eventually(lambda: not (there / "a").exists())
    assert (there / "z/b/c").read_text() == "data\n"


def test_the_attributes_of_an_open_file_follow_other_doors(mounts: Mounts) -> None:
    here, there = mounts.mount(), mounts.mount()
    (here / "a").write_bytes(b"data")
    eventually((there / "a").exists)
    os.utime(here / "a", ns=(0, 10**18))
    eventually(lambda: (there / "a").stat().st_mtime_ns == 10**18)
    assert (there / "a").stat().st_size == 4


def test_random_changes_at_two_doors_end_in_the_same_tree(mounts: Mounts) -> None:
    mounted = mounts.mount()
    chance = random.Random(5)
    with mounted.core() as core:
        names = [f"n{number}" for number in range(6)] + [f"d/n{number}" for number in range(6)]
        for number in range(120):
            name = chance.choice(names)
            present = {image.name: image for image in core.images.find_all(LOCAL, _everything())}
            match chance.randrange(4):
                case 0 if name not in present:
                    new = NewImage(name=name, type=image_type("raw"))
                    core.images.add(LOCAL, new, io.BytesIO(str(number).encode()))
                case 1 if name in present:
                    core.images.delete(LOCAL, present[name].id)
                case 2 if name in present and (target := chance.choice(names)) not in present:
                    core.images.update(LOCAL, present[name].id, ImageChanges(name=target))
                case 3:
                    mounted.shell('mkdir -p d; echo "$1" >"$2" || true', str(number), name)
        expected = sorted(image.name for image in core.images.find_all(LOCAL, _everything()))
    eventually(lambda: sorted(mounted.run("find", ".", "-type", "f", "-printf", "%P\\n").out.split()) == expected)
    for name in expected:
        assert (mounted / name).read_bytes() == mounted.content(name)


def _everything() -> ImageQuery:
    return ImageQuery(is_public=None)
