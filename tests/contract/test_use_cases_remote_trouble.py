# SPDX-License-Identifier: Apache-2.0
"""What the use cases promise when the network or the server fails: nothing twice, and nothing by halves.

Threading: none.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from glancefs.context import RequestContext
from glancefs.errors import ConfigError, FolderNotEmpty, Forbidden, ImageNotFound, NotAuthenticated, Unavailable
from glancefs.model import ImageChanges, ImageStatus
from glancefs.registries.locks import Touched
from glancefs.remote.connection import ServerConnection
from glancefs.remote.images import RemoteImages
from glancefs.transport import Credentials
from tests.contract.use_case_contract import DATA, add, data_of, everything, local_file, new
from tests.support.processes import free_port
from tests.support.proxies import Proxy, Trouble
from tests.support.registries import TOKEN, RegistryService
from tests.support.use_cases import Caller, Far

BIG = DATA * 8


@dataclass(slots=True, kw_only=True)
class Distance:
    """A server, a user near it, and the same user behind a network that fails."""

    place: Far
    near: Caller
    far: Caller
    proxy: Proxy


@pytest.fixture
def distance(tmp_path: Path) -> Iterator[Distance]:
    place = Far(tmp_path / "data", timeout=30)
    near = place.caller("ann")
    with Proxy(place.server.url) as proxy:
        place.between = lambda _: proxy.url
        yield Distance(place=place, near=near, far=place.caller("ann"), proxy=proxy)
        place.close()


CHANGES: dict[str, Callable[[Caller, str], object]] = {
    "create": lambda one, _: one.images.create(one.context, new("new")).name,
    "create in place of another": lambda one, old: one.images.create(one.context, new("new"), replacing=old).name,
    "copy": lambda one, old: one.images.copy(one.context, old, new("new")).name,
    "update": lambda one, old: one.images.update(one.context, old, ImageChanges(name="b", min_ram=7)).name,
    "delete": lambda one, old: one.images.delete(one.context, old),
    "make a folder": lambda one, _: one.folders.make(one.context, "f").path,
    "remove a folder": lambda one, _: one.folders.remove(one.context, "made"),
    "move a folder": lambda one, _: one.folders.move(one.context, "a", "b"),
    "touch a folder": lambda one, _: one.folders.set_mtime(one.context, "made", 5).mtime_ns,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_answers_are_lost_is_made_once_and_answered(distance: Distance, change: str) -> None:
    image = add(distance.near, "a/1")
    distance.near.folders.make(distance.near.context, "made")
    distance.far.folders.revision()
    before = distance.near.folders.revision()
    distance.proxy.next = [Trouble.LOSE_REQUEST, Trouble.LOSE_ANSWER, Trouble.LOSE_ANSWER]
    answer = CHANGES[change](distance.far, image.id)
    assert not distance.proxy.next
    changes = distance.near.folders.changes(before)
    told = {"delete": None, "remove a folder": None, "move a folder": 1, "make a folder": "f", "touch a folder": 5}
    assert answer == told.get(change, "b" if change == "update" else "new")
    # Each row that changed did so once: the revisions are without a gap.
    revisions = sorted([*(image.revision for image in changes.images), *(one.revision for one in changes.folders)])
    assert revisions == list(range(before + 1, changes.revision + 1))


def test_a_change_is_made_once_where_the_registry_is_far_away_too(tmp_path: Path) -> None:
    with RegistryService(tmp_path / "registry") as service:
        place = Far(tmp_path / "data", said={"registry": service.url, "registry_token": TOKEN}, timeout=30)
        near = place.caller("ann")
        image = add(near, "a/1")
        with Proxy(place.server.url) as proxy:
            place.between = lambda _: proxy.url
            far = place.caller("ann")
            far.folders.revision()
            since = near.folders.revision()
            proxy.next = [Trouble.LOSE_ANSWER]
            far.images.delete(far.context, image.id)
            proxy.next = [Trouble.LOSE_ANSWER]
            assert far.folders.make(far.context, "f").path == "f"
            with local_file(tmp_path / "file") as file:
                proxy.next = [Trouble.LOSE_ANSWER]
                added = far.images.add(far.context, new(), file)
            far.folders.wait_for_change(1)
            changes = far.folders.changes(since)
        assert [one.id for one in changes.images] == [image.id, added.id]
        assert [one.id for one in everything(near)] == [added.id]
        assert _files(place) == 1
        place.close()


@pytest.mark.parametrize("lost", [Trouble.LOSE_REQUEST, Trouble.LOSE_ANSWER])
@pytest.mark.expect_log("upload|UploadTruncated", optional=True)
def test_an_upload_that_is_cut_is_sent_again_and_there_is_one_image(
    distance: Distance, tmp_path: Path, lost: Trouble
) -> None:
    old = add(distance.near, data=b"old")
    distance.proxy.next = [lost, Trouble.NONE, lost]
    with local_file(tmp_path / "file", BIG) as file:
        image = distance.far.images.add(distance.far.context, new(), file, replacing=old.id)
    assert distance.proxy.troubles
    assert [one.id for one in everything(distance.near)] == [image.id]
    assert data_of(distance.near, image) == BIG
    assert _files(distance.place) == 1


def test_the_data_of_a_queued_image_are_sent_again_and_kept_once(distance: Distance, tmp_path: Path) -> None:
    image = distance.near.images.create(distance.near.context, new())
    distance.far.images.get(distance.far.context, image.id)
    distance.proxy.next = [Trouble.NONE, Trouble.LOSE_ANSWER]
    with local_file(tmp_path / "file") as file:
        done = distance.far.images.upload(distance.far.context, image.id, file)
    assert distance.proxy.troubles == 1
    assert (done.id, done.status) == (image.id, ImageStatus.AVAILABLE)
    assert data_of(distance.near, done) == DATA
    assert _files(distance.place) == 1


def test_a_refusal_whose_answer_is_lost_is_a_refusal(distance: Distance) -> None:
    add(distance.near, "x/y")
    distance.proxy.next = [Trouble.LOSE_ANSWER]
    with pytest.raises(ImageNotFound):
        distance.far.images.delete(distance.far.context, "none")
    distance.proxy.next = [Trouble.LOSE_ANSWER]
    with pytest.raises(FolderNotEmpty):
        distance.far.folders.remove(distance.far.context, "x")


def test_a_server_that_does_not_answer_is_unavailable_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = ServerConnection(url=url, timeout=0.5)
        images = RemoteImages(server=server)
        began = time.monotonic()
        with local_file(tmp_path / "file") as file:
            for work in (
                server.greet,
                images.space,
                lambda: server.changes(0, limit=5),
                lambda: images.add(RequestContext(user="ann"), new(), file),
            ):
                with pytest.raises(Unavailable, match="127"):
                    work()
        # Generous: what is shown is that it ends at all.
        assert time.monotonic() - began < 60
        server.close()


def test_what_names_meant_is_remembered_while_the_server_is_away(tmp_path: Path) -> None:
    place = Far(tmp_path / "data", timeout=2)
    ann = place.caller("ann")
    kept, gone = add(ann, "folder/kept"), add(ann, "gone")
    since = ann.folders.revision()
    for name in ("folder", "folder/kept", "gone", "nothing"):
        ann.folders.at(ann.context, name)
    ann.images.delete(ann.context, gone.id)
    ann.folders.changes(since)
    place.server.stop()
    found = ann.folders.at(ann.context, "folder/kept").image
    assert found is not None
    assert found.id == kept.id
    assert ann.folders.at(ann.context, "folder").folder is not None
    for name in ("gone", "nothing", "never asked for"):
        with pytest.raises(Unavailable):
            ann.folders.at(ann.context, name)
    place.close()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    server = ServerConnection(url=f"http://127.0.0.1:{free_port()}", timeout=0.5)
    with pytest.raises(Unavailable, match="can't be reached"):
        server.greet()
    server.close()


def test_what_is_no_server_for_mounts_is_told_in_one_line(distance: Distance) -> None:
    old = ServerConnection(url=f"{distance.place.server.url}/images", timeout=5)
    with pytest.raises(ConfigError, match="earlier version, which serves no mounts"):
        old.greet()
    old.close()


def test_who_is_not_known_is_told_so(distance: Distance) -> None:
    wrong = Credentials(user="ann", password="wrong")
    server = ServerConnection(url=distance.place.server.url, credentials=wrong, timeout=30)
    with pytest.raises(NotAuthenticated):
        server.greet()
    server.close()
    assert distance.place.connect("ann").greet().user == "ann"
    assert distance.place.connect("root").greet().is_admin
    assert distance.place.connect(None).greet().user is None


def test_others_private_changes_tell_an_identifier_and_nothing_else(distance: Distance) -> None:
    bob = distance.place.caller("bob")
    shown = add(distance.near, "shown", is_public=True)
    since = bob.folders.revision()
    secret = add(distance.near, "secret/name", properties={"secret": "yes"})
    distance.near.folders.make(distance.near.context, "secret-folder")
    distance.near.images.update(distance.near.context, shown.id, ImageChanges(is_public=False))
    changes = bob.folders.changes(since)
    assert changes.folders == ()
    assert {image.id for image in changes.images} == {secret.id, shown.id}
    for image in changes.images:
        assert (image.name, image.owner, image.checksum, image.size) == ("", None, None, 0)
        assert (image.status, image.properties) == (ImageStatus.DELETED, {})


def test_others_locks_are_not_to_be_asked_about(distance: Distance) -> None:
    bob = distance.place.caller("bob")
    with pytest.raises(Forbidden):
        bob.locks.check(bob.context, [Touched(path="a", guarding="ann")])
    with pytest.raises(Forbidden):
        bob.locks.forget(bob.context, "a", guarding=None)
    with pytest.raises(Forbidden):
        bob.locks.covering("a", guarding="ann")


def test_where_data_lie_is_told_to_nobody(distance: Distance) -> None:
    image = add(distance.near, "f/a")
    page = distance.near.folders.images_in(distance.near.context, "f")
    found = distance.near.folders.at(distance.near.context, "f/a").image
    changed = distance.near.folders.changes(0).images
    for one in (image, *page.images, found, *changed, *everything(distance.near)):
        assert one is not None
        assert one.location is None


def _files(place: Far) -> int:
    folder = place.folder / "images"
    return sum(1 for path in folder.glob("*/*") if path.is_file() and len(path.name) > len("registry"))
