# SPDX-License-Identifier: Apache-2.0
"""What the use cases of the tree promise, as tests: one suite, run over those of this process and over those far away.

Answers for the sentences of `glancefs.images.Images`, `glancefs.folders.Folders` and `glancefs.locks.Locks`, as far as
`glancefs.tree.ports` asks for them. A class of tests says how to make them.

Threading: one test waits in a thread.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glancefs.context import RequestContext
from glancefs.errors import (
    ChecksumMismatch,
    Duplicate,
    FolderNotEmpty,
    Forbidden,
    ImageNotFound,
    ImmutableImage,
    InvalidQuery,
    Locked,
    NotAuthenticated,
    PathNotFound,
    PathTaken,
    ProtectedImage,
    SizeMismatch,
    StaleImage,
    UnsupportedStore,
    WrongStatus,
)
from glancefs.localfile import LocalFile
from glancefs.model import Image, ImageChanges, ImageStatus, ImageType, NewImage
from glancefs.registries.base import ImageQuery, SortDirection, SortKey
from glancefs.registries.folders import outline_of
from glancefs.registries.locks import Touched
from glancefs.tree.ports import OutlinedFolders
from tests.support.use_cases import ADMIN, Caller, Far, Here

DATA = bytes(range(256)) * 3000


def checksum_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def new(name: str = "disk", **said: Any) -> NewImage:
    return NewImage(**{"name": name, "type": ImageType.RAW} | said)


@contextmanager
def local_file(path: Path, data: bytes = DATA) -> Iterator[LocalFile]:
    """Lay a file out as staging does."""
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield LocalFile(path=path, descriptor=descriptor, size=len(data), checksum=checksum_of(data))
    finally:
        os.close(descriptor)


def data_of(caller: Caller, image: Image) -> bytes:
    with caller.images.open_image(image) as reader:
        return b"".join(reader.iter())


def add(caller: Caller, name: str = "disk", data: bytes = DATA, *, replacing: str | None = None, **said: Any) -> Image:
    image = new(name, **said)
    return caller.images.add(caller.context, image, io.BytesIO(data), size=len(data), replacing=replacing)


def everything(caller: Caller, **said: Any) -> list[Image]:
    return list(caller.images.find_all(caller.context, ImageQuery(**{"is_public": None} | said), page_size=3))


class UseCaseContract:
    """The whole contract. A class of tests adds `make`."""

    def make(self, folder: Path) -> Here | Far:
        """Make the use cases of a folder that has no images yet."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Here | Far]:
        """The use cases under test."""
        place = self.make(tmp_path / "data")
        yield place
        place.close()

    @pytest.fixture
    def ann(self, place: Here | Far) -> Caller:
        """One user."""
        return place.caller("ann")

    @pytest.fixture
    def bob(self, place: Here | Far) -> Caller:
        """Another one."""
        return place.caller("bob")

    # ---- images

    def test_an_image_is_added_with_its_data_and_read_again(self, ann: Caller) -> None:
        properties = {"os": "é" * 3000, "location": "a property of this name"}
        image = add(ann, properties=properties, min_ram=512, disk_format="raw")
        assert (image.status, image.size, image.checksum) == (ImageStatus.AVAILABLE, len(DATA), checksum_of(DATA))
        assert (image.owner, dict(image.properties), image.min_ram) == ("ann", properties, 512)
        assert data_of(ann, image) == DATA
        with ann.images.open_image(image) as reader:
            assert reader.read_at(1000, 70_000) == DATA[1000:71_000]
            assert reader.read_at(len(DATA) - 3, 100) == DATA[-3:]
        assert ann.images.get(ann.context, image.id).name == image.name
        assert ann.images.allocated(image) > 0
        space = ann.images.space()
        assert space is not None
        assert 0 < space.free <= space.total

    def test_a_local_file_becomes_an_image(self, ann: Caller, tmp_path: Path) -> None:
        with local_file(tmp_path / "file") as file:
            image = ann.images.add(ann.context, new(), file)
            assert (image.size, image.checksum) == (len(DATA), checksum_of(DATA))
            assert data_of(ann, image) == DATA

    def test_an_empty_file_becomes_an_empty_image(self, ann: Caller, tmp_path: Path) -> None:
        with local_file(tmp_path / "file", b"") as file:
            image = ann.images.add(ann.context, new(), file)
        assert (image.size, image.status) == (0, ImageStatus.AVAILABLE)
        assert data_of(ann, image) == b""

    @pytest.mark.parametrize(
        ("said", "error"),
        [
            ({"checksum": checksum_of(b"other")}, ChecksumMismatch),
            ({"size": len(DATA) + 1}, SizeMismatch),
            ({"store": "nowhere"}, UnsupportedStore),
            ({"owner": "bob"}, Forbidden),
            ({"id": "taken"}, Duplicate),
        ],
    )
    def test_what_can_not_be_is_refused_and_leaves_nothing(
        self, ann: Caller, tmp_path: Path, said: dict[str, Any], error: type[Exception]
    ) -> None:
        add(ann, "first", id="taken")
        with local_file(tmp_path / "file") as file:
            with pytest.raises(error):
                ann.images.add(ann.context, new(**said), file)
            assert [image.name for image in everything(ann)] == ["first"]
            # The file is there again.
            assert ann.images.add(ann.context, new("second"), file).size == len(DATA)

    def test_an_image_takes_the_place_of_another_in_one_step(self, ann: Caller, place: Here | Far) -> None:
        old = add(ann, data=b"old")
        image = add(ann, data=b"new", replacing=old.id)
        assert [(one.id, data_of(ann, one)) for one in everything(ann)] == [(image.id, b"new")]
        with pytest.raises(ImageNotFound):
            ann.images.get(ann.context, old.id)
        # One that is gone already is not missed.
        again = ann.images.create(ann.context, new(), replacing=old.id)
        assert again.status is ImageStatus.QUEUED
        assert len(everything(ann)) == 2

    def test_an_image_is_only_added_where_none_of_its_name_is_seen(
        self, ann: Caller, bob: Caller, tmp_path: Path
    ) -> None:
        add(bob, "theirs")
        public = add(bob, "public", is_public=True)
        for name in ("mine", "theirs"):
            with local_file(tmp_path / name) as file:
                assert ann.images.add(ann.context, new(name), file, only_new=True).name == name
        for name in ("mine", "public"):
            with local_file(tmp_path / name) as file:
                with pytest.raises(PathTaken):
                    ann.images.add(ann.context, new(name), file, only_new=True)
                # The file is there again, and nothing was kept of it.
                assert (tmp_path / name).read_bytes() == DATA
        assert sorted(one.name for one in everything(ann)) == ["mine", "public", "theirs"]
        assert data_of(ann, public) == DATA

    def test_a_queued_image_gets_its_data(self, ann: Caller, tmp_path: Path) -> None:
        image = ann.images.create(ann.context, new(size=10))
        assert (image.status, image.size) == (ImageStatus.QUEUED, 10)
        with pytest.raises(ImageNotFound):
            ann.images.open_image(image)
        assert ann.images.declare_size(ann.context, image.id, 20).size == 20
        changes = ImageChanges(name="unset", properties={"a": "b"})
        with local_file(tmp_path / "file") as file:
            # A local file is as large as it was made.
            done = ann.images.upload(ann.context, image.id, file, changes=changes)
        assert (done.id, done.status, done.size) == (image.id, ImageStatus.AVAILABLE, len(DATA))
        assert (done.name, dict(done.properties)) == ("unset", {"a": "b"})
        assert data_of(ann, done) == DATA
        with local_file(tmp_path / "other", b"other") as file, pytest.raises(ImmutableImage):
            ann.images.upload(ann.context, image.id, file)
        with pytest.raises(WrongStatus):
            ann.images.declare_size(ann.context, image.id, 5)

    def test_a_queued_image_whose_data_are_others_stays_queued(self, ann: Caller, tmp_path: Path) -> None:
        image = ann.images.create(ann.context, new(checksum=checksum_of(b"expected")))
        with local_file(tmp_path / "file") as file, pytest.raises(ChecksumMismatch):
            ann.images.upload(ann.context, image.id, file)
        assert ann.images.get(ann.context, image.id).status is ImageStatus.QUEUED

    def test_a_copy_has_the_data_of_its_source(self, ann: Caller) -> None:
        image = add(ann)
        copied = ann.images.copy(ann.context, image.id, new("copy"))
        assert (copied.name, copied.checksum) == ("copy", image.checksum)
        assert data_of(ann, copied) == DATA
        with pytest.raises(ImageNotFound):
            ann.images.copy(ann.context, "none", new("copy"))

    def test_metadata_are_changed_as_they_are_said(self, ann: Caller) -> None:
        image = add(ann, properties={"a": "1", "b": "2", "c": "3"}, min_disk=4)
        changes = ImageChanges(
            name="moved", min_disk=None, properties={"b": "20"}, removed_properties=frozenset({"c"}), protected=True
        )
        changed = ann.images.update(ann.context, image.id, changes, expected_revision=image.revision)
        assert (changed.name, changed.min_disk, changed.protected) == ("moved", None, True)
        assert dict(changed.properties) == {"a": "1", "b": "20"}
        with pytest.raises(StaleImage):
            ann.images.update(ann.context, image.id, ImageChanges(name="x"), expected_revision=image.revision)
        with pytest.raises(ProtectedImage):
            ann.images.delete(ann.context, image.id)
        purged = ImageChanges(purge_properties=True, protected=False)
        assert ann.images.update(ann.context, image.id, purged).properties == {}
        other = add(ann, "other")
        assert ann.images.update(ann.context, image.id, ImageChanges(name="other"), replacing=other.id).name == "other"
        assert [one.id for one in everything(ann)] == [image.id]

    def test_a_deleted_image_is_gone(self, ann: Caller) -> None:
        image = add(ann)
        with pytest.raises(StaleImage):
            ann.images.delete(ann.context, image.id, expected_revision=image.revision + 7)
        ann.images.delete(ann.context, image.id, expected_revision=image.revision)
        for gone in (image.id, "never there"):
            with pytest.raises(ImageNotFound):
                ann.images.delete(ann.context, gone)
        assert everything(ann) == []

    def test_lists_are_whole_in_pages(self, ann: Caller) -> None:
        for number in range(8):
            ann.images.create(ann.context, new(f"image-{number}", properties={"number": str(number)}))
        listed = everything(ann, sort_key=SortKey.NAME, sort_direction=SortDirection.ASCENDING)
        assert [image.name for image in listed] == [f"image-{number}" for number in range(8)]
        assert [image.name for image in everything(ann, properties={"number": "5"})] == ["image-5"]
        with pytest.raises(InvalidQuery):
            everything(ann, marker="none")

    # ---- whose they are

    def test_another_users_private_image_does_not_exist(self, ann: Caller, bob: Caller, place: Here | Far) -> None:
        private, public = add(ann, "private"), add(ann, "public", is_public=True)
        for work in (
            lambda: bob.images.get(bob.context, private.id),
            lambda: bob.images.update(bob.context, private.id, ImageChanges(name="x")),
            lambda: bob.images.delete(bob.context, private.id),
            lambda: bob.images.copy(bob.context, private.id, new("x")),
        ):
            with pytest.raises(ImageNotFound):
                work()
        assert [image.id for image in everything(bob)] == [public.id]
        assert bob.folders.at(bob.context, "private").image is None
        assert data_of(bob, bob.images.get(bob.context, public.id)) == DATA
        with pytest.raises(Forbidden):
            bob.images.delete(bob.context, public.id)
        admin = place.caller(ADMIN)
        assert admin.images.update(admin.context, private.id, ImageChanges(owner="bob")).owner == "bob"
        assert data_of(bob, bob.images.get(bob.context, private.id)) == DATA

    def test_nobody_sees_what_is_public_and_changes_nothing(self, ann: Caller, place: Here | Far) -> None:
        nobody = place.caller(None)
        public = add(ann, is_public=True)
        assert [image.id for image in everything(nobody)] == [public.id]
        for work in (
            lambda: nobody.images.create(nobody.context, new("x")),
            lambda: nobody.images.delete(nobody.context, public.id),
            lambda: nobody.folders.make(nobody.context, "folder"),
        ):
            with pytest.raises(NotAuthenticated):
                work()

    # ---- folders

    def test_folders_are_made_filled_moved_and_removed(self, ann: Caller) -> None:
        made = ann.folders.make(ann.context, "a")
        assert (made.path, made.owner) == ("a", "ann")
        with pytest.raises(PathTaken):
            ann.folders.make(ann.context, "a")
        image = add(ann, "a/é/one")
        assert [folder.path for folder in ann.folders.folders_in(ann.context, "a")] == ["a/é"]
        assert [one.id for one in ann.folders.images_in(ann.context, "a/é").images] == [image.id]
        with pytest.raises(FolderNotEmpty):
            ann.folders.remove(ann.context, "a")
        assert ann.folders.move(ann.context, "a", "b") == 1
        assert ann.images.get(ann.context, image.id).name == "b/é/one"
        with pytest.raises(PathNotFound):
            ann.folders.get(ann.context, "a")
        assert ann.folders.set_mtime(ann.context, "b", 1_234_567_890_123_456_789).mtime_ns == 1_234_567_890_123_456_789
        assert ann.folders.get(ann.context, "b").mtime_ns == 1_234_567_890_123_456_789
        ann.images.delete(ann.context, image.id)
        ann.folders.keep(ann.context, "b/é")
        ann.folders.keep(ann.context, "b/é")
        ann.folders.remove(ann.context, "b/é")
        ann.folders.remove(ann.context, "b")
        with pytest.raises(PathNotFound):
            ann.folders.remove(ann.context, "b")

    def test_pages_of_a_folder_hold_everything_once(self, ann: Caller) -> None:
        images = [add(ann, f"f/{number}", b"x").id for number in range(5)]
        for number in range(3):
            ann.folders.make(ann.context, f"f/folder-{number}")
        seen: list[str] = []
        marker = None
        while True:
            page = ann.folders.images_in(ann.context, "f", after=marker, limit=2)
            seen += [image.id for image in page.images]
            if (marker := page.marker) is None:
                break
        assert seen == images
        first = ann.folders.folders_in(ann.context, "f", limit=2)
        rest = ann.folders.folders_in(ann.context, "f", after=first[-1].path, limit=2)
        assert [folder.path for folder in (*first, *rest)] == [f"f/folder-{number}" for number in range(3)]

    def test_a_listing_in_short_tells_what_attributes_take(self, ann: Caller, bob: Caller) -> None:
        add(bob, "f/private")
        images = [
            add(ann, "f/é", b"12", is_public=True, properties={"mtime": "1.5"}),
            ann.images.create(ann.context, new("f/queued", size=7)),
        ]
        assert isinstance(ann.folders, OutlinedFolders)
        page = ann.folders.outlines_in(ann.context, "f", limit=2)
        whole = ann.folders.images_in(ann.context, "f", limit=2)
        assert page.marker == whole.marker is None
        assert [one.id for one in page.images] == [image.id for image in sorted(images, key=lambda one: one.name)]
        for short, image in zip(page.images, whole.images, strict=True):
            # Where data lie is told near the store alone.
            assert short._replace(location=None) == outline_of(image)._replace(location=None)
        first = ann.folders.outlines_in(ann.context, "f", limit=1)
        rest = ann.folders.outlines_in(ann.context, "f", after=first.marker, limit=1)
        assert [*first.images, *rest.images] == page.images
        assert rest.marker is None

    def test_a_name_means_the_callers_own_image_before_others(self, ann: Caller, bob: Caller) -> None:
        anns = add(ann, "same", is_public=True)
        bobs = add(bob, "same", is_public=True)
        later = add(bob, "same")
        for caller, first in ((ann, anns), (bob, bobs)):
            found = caller.folders.first_named(caller.context, "same")
            assert found is not None
            assert found.id == first.id
            ids = [anns.id, bobs.id]
            assert set(caller.folders.first_of_their_names(caller.context, ids)) == {first.id}
        assert later.id not in set(bob.folders.first_of_their_names(bob.context, [later.id]))
        assert ann.folders.first_named(ann.context, "none") is None
        add(ann, "same/below")
        both = ann.folders.at(ann.context, "same")
        assert both.image is not None
        assert both.folder is not None

    # ---- changes

    def test_changes_are_told_from_a_revision_on(self, ann: Caller) -> None:
        before = ann.folders.revision()
        image = add(ann)
        ann.folders.make(ann.context, "folder")
        changes = ann.folders.changes(before)
        assert [one.id for one in changes.images] == [image.id]
        assert [folder.path for folder in changes.folders] == ["folder"]
        assert changes.revision == ann.folders.revision()
        assert ann.folders.changes(changes.revision).images == ()

    def test_who_waits_hears_of_a_change(self, ann: Caller, bob: Caller) -> None:
        since = ann.folders.revision()
        heard = threading.Event()

        def wait() -> None:
            # It may come back early, with nothing.
            while not ann.folders.changes(since).images:
                ann.folders.wait_for_change(20)
            heard.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        add(bob, is_public=True)
        assert heard.wait(30)
        waiting.join()

    # ---- locks

    def test_what_is_locked_is_changed_with_the_token_alone(self, ann: Caller, place: Here | Far) -> None:
        image = add(ann, "locked")
        lock = place.core.locks.acquire(ann.context, "locked", guards="ann")
        touched = [Touched(path="locked", guarding="ann")]
        for work in (
            lambda: ann.locks.check(ann.context, touched),
            lambda: ann.images.delete(ann.context, image.id),
            lambda: ann.images.update(ann.context, image.id, ImageChanges(name="x")),
            lambda: ann.locks.forget(ann.context, "locked", guarding="ann"),
        ):
            with pytest.raises(Locked) as caught:
                work()
            assert caught.value.path == "locked"
        holder = _with_token(ann, lock.token)
        assert ann.locks.check(holder, touched)
        ann.images.delete(holder, image.id)
        assert not ann.locks.check(ann.context, touched)


def _with_token(caller: Caller, token: str) -> RequestContext:
    return replace(caller.context, lock_tokens=frozenset({token}))
