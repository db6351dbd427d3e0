# SPDX-License-Identifier: Apache-2.0
"""The same images over WebDAV, over REST and on the mount: within a second, both ways, and locked for all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.dav_folder import LOCKINFO, DavFolder
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.processes import Processes
from tests.support.servers import start_server

pytestmark = pytest.mark.needs("fuse")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DavFolder, Mount]]:
    """A server with two workers and a mount of the same data folder."""
    place = tmp_path_factory.mktemp("doors")
    with Processes(place) as processes:
        mounts = Mounts(processes, place)
        mount = mounts.mount()
        server = start_server(processes, mount.data, "--workers", "2")
        yield DavFolder(server=server, path="/dav"), mount
        mounts.end()


@pytest.fixture
def doors(both: tuple[DavFolder, Mount], request: pytest.FixtureRequest) -> tuple[DavFolder, Path]:
    """An empty folder as WebDAV has it, and as the mount has it."""
    root, mount = both
    name = re.sub(r"\W+", "-", request.node.name)
    assert root.ask("MKCOL", name).status == 201
    eventually((mount / name).is_dir)
    return DavFolder(server=root.server, path=f"/dav/{name}"), mount / name


def refused(change: Callable[[], object]) -> int | None:
    """Give the errno with which a change is refused."""
    try:
        change()
    except OSError as error:
        return error.errno
    return None


def test_what_webdav_puts_is_on_the_mount_and_in_rest(doors: tuple[DavFolder, Path]) -> None:
    folder, here = doors
    data = os.urandom(500_000)
    assert folder.put("a.img", data).status == 201
    assert folder.images()["a.img"]["size"] == "500000"
    eventually((here / "a.img").exists)
    assert (here / "a.img").read_bytes() == data
    assert folder.put("a.img", b"replaced").status == 204
    eventually(lambda: (here / "a.img").read_bytes() == b"replaced")
    assert folder.ask("MOVE", "a.img", {"Destination": f"{folder.url}/b.img"}).status == 201
    eventually(lambda: [path.name for path in here.iterdir()] == ["b.img"])
    assert folder.ask("DELETE", "b.img").status == 204
    eventually(lambda: list(here.iterdir()) == [])


def test_what_the_mount_writes_is_there_for_webdav(doors: tuple[DavFolder, Path]) -> None:
    folder, here = doors
    data = os.urandom(500_000)
    (here / "a.img").write_bytes(data)
    assert folder.get("a.img") == data
    (here / "sub").mkdir()
    (here / "a.img").rename(here / "sub/b.img")
    assert folder.names() == ["sub/"]
    assert folder.names("sub/") == ["b.img"]
    (here / "sub/b.img").write_bytes(b"replaced")
    assert folder.get("sub/b.img") == b"replaced"
    (here / "sub/b.img").unlink()
    (here / "sub").rmdir()
    assert folder.names() == []


def test_what_rest_posts_is_there_for_webdav(doors: tuple[DavFolder, Path]) -> None:
    folder, _ = doors
    headers = {"x-image-meta-name": f"{folder.name}/a.img", "x-image-meta-type": "machine"}
    headers |= {"x-image-meta-property-distro": "debian"}
    posted = folder.server.ask("POST", "/images/", headers, b"data").image
    assert folder.get("a.img") == b"data"
    found = folder.properties("a.img")
    assert found["{urn:glancefs:image}id"] == posted["id"]
    assert found["{urn:glancefs:property}distro"] == "debian"
    folder.server.ask("DELETE", f"/images/{posted['id']}")
    assert folder.ask("GET", "a.img").status == 404


def test_the_mount_changes_nothing_that_webdav_has_locked(doors: tuple[DavFolder, Path]) -> None:
    folder, here = doors
    folder.put("a.img", b"data")
    (here / "other.img").write_bytes(b"other")
    token = folder.lock("a.img")
    changes: dict[str, Callable[[], object]] = {
        "written over": lambda: (here / "a.img").write_bytes(b"new"),
        "renamed": lambda: (here / "a.img").rename(here / "b.img"),
        "replaced by a rename": lambda: (here / "other.img").rename(here / "a.img"),
        "removed": (here / "a.img").unlink,
        "described": lambda: os.setxattr(here / "a.img", "user.glance.property.distro", b"debian"),
    }
    eventually(lambda: refused(changes["described"]) == errno.EBUSY)
    assert {what: refused(change) for what, change in changes.items()} == dict.fromkeys(changes, errno.EBUSY)
    assert (here / "a.img").read_bytes() == b"data"
    assert set(folder.images()) == {"a.img", "other.img"}
    folder.unlock("a.img", token)
    eventually(lambda: refused((here / "a.img").unlink) is None)
    assert set(folder.images()) == {"other.img"}


def test_the_mount_says_in_its_log_what_is_locked(doors: tuple[DavFolder, Path], both: tuple[DavFolder, Mount]) -> None:
    folder, here = doors
    folder.put("a.img", b"data")
    folder.lock("a.img")
    eventually(lambda: refused(lambda: (here / "a.img").write_bytes(b"new")) == errno.EBUSY)
    assert re.search(rf"{folder.name}/a\.img.*locked", both[1].log(), re.IGNORECASE)


def test_rest_changes_nothing_that_webdav_has_locked(doors: tuple[DavFolder, Path]) -> None:
    folder, _ = doors
    folder.put("a.img", b"data")
    path = f"/images/{folder.images()['a.img']['id']}"
    token = folder.lock("a.img")
    for method, headers in (("PUT", {"x-image-meta-property-distro": "debian"}), ("DELETE", {})):
        reply = folder.server.ask(method, path, headers)
        assert reply.status in {409, 423}, reply
        assert b"lock" in reply.body.lower()
    folder.unlock("a.img", token)
    assert folder.server.ask("DELETE", path).status == 200


def test_all_workers_know_of_a_lock_and_of_its_end(doors: tuple[DavFolder, Path]) -> None:
    folder, _ = doors
    for _ in range(3):
        token = folder.lock("a.img")
        # Each request is on a connection of its own, so some worker or other gets it.
        assert {folder.put("a.img", b"by others").status for _ in range(8)} == {423}
        assert {folder.ask("LOCK", "a.img", {"Timeout": "Second-60"}, b"").status for _ in range(4)} <= {400, 412, 423}
        found = [folder.properties("a.img")["{DAV:}lockdiscovery"] for _ in range(4)]
        assert all(token in said for said in found)
        assert {folder.put("a.img", b"by me", {"If": f"(<{token}>)"}).status for _ in range(4)} <= {200, 201, 204}
        assert folder.unlock("a.img", token).status == 204
        assert {folder.put("a.img", b"by others").status for _ in range(4)} <= {200, 204}
        assert folder.ask("DELETE", "a.img").status == 204


def test_only_one_of_many_gets_an_exclusive_lock(doors: tuple[DavFolder, Path]) -> None:
    folder, _ = doors
    with ThreadPoolExecutor(8) as together:
        replies = list(
            together.map(lambda _: folder.ask("LOCK", "a.img", {"Timeout": "Second-60"}, LOCKINFO.encode()), range(16))
        )
    assert min(reply.status for reply in replies) in {200, 201}
    assert [reply.status for reply in replies].count(423) == 15
