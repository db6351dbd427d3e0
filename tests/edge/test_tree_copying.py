# SPDX-License-Identifier: Apache-2.0
"""Copies: of images by id, and of files and folders in the tree.

Threading: one test deletes what is being copied from another thread.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glancefs.context import RequestContext
from glancefs.errors import (
    ChecksumMismatch,
    DataMissing,
    FolderNotEmpty,
    Forbidden,
    ImageNotFound,
    InvalidRequest,
    IsAFolder,
    NotAFolder,
    NotAuthenticated,
    PathNotFound,
    PathTaken,
    ProtectedImage,
    StoreFull,
    UploadTooLarge,
    WrongStatus,
)
from glancefs.images import Images
from glancefs.model import Image, ImageStatus, ImageType, Location, NewImage
from glancefs.stores.base import Stored, Swept
from glancefs.stores.file import FileStore
from glancefs.stores.memory import MemoryStore
from glancefs.sweep import sweep
from glancefs.tree import EntryKind, ImageTree
from tests.support.trees import ADMIN, ALICE, BOB, Core, get, give, names, put, put_staged, read, walk

STORES = ["file", "memory"]


def new(name: str = "copy", **said: Any) -> NewImage:
    return NewImage(**{"name": name, "type": ImageType.RAW} | said)


def data_of(core: Core, image: Image, context: RequestContext = ALICE) -> bytes:
    with core.images.open(context, image.id) as reader:
        return b"".join(reader.iter())


# ---- by id


@pytest.mark.parametrize("kind", STORES)
def test_a_copy_is_an_image_of_its_own(tmp_path: Path, kind: str) -> None:
    core = Core.at(tmp_path, MemoryStore(scheme="file") if kind == "memory" else None)
    source = core.post("a", b"data")
    copied = core.images.copy(ALICE, source.id, new(min_disk=3))
    assert copied.id != source.id
    assert (copied.name, copied.min_disk, copied.status) == ("copy", 3, ImageStatus.AVAILABLE)
    assert (copied.size, copied.checksum) == (source.size, source.checksum)
    core.images.delete(ALICE, source.id)
    assert data_of(core, copied) == b"data"
    assert sweep(registry=core.registry, stores={"file": core.store}) == Swept()
    core.close()


def test_a_copy_into_another_store_streams_and_is_held_against_the_checksum(tmp_path: Path) -> None:
    core = Core.at(tmp_path)
    memory = MemoryStore()
    images = Images(registry=core.registry, stores={"file": core.store, "memory": memory}, default_store="file")
    source = core.post("a", b"data")
    copied = images.copy(ALICE, source.id, new(store="memory"))
    assert (copied.store, copied.checksum) == ("memory", source.checksum)
    with images.open(ALICE, copied.id) as reader:
        assert reader.read_at(0, 9) == b"data"
    assert source.location is not None
    (tmp_path / "file" / source.location.key[:2] / source.location.key).write_bytes(b"dada")
    with pytest.raises(ChecksumMismatch):
        images.copy(ALICE, source.id, new(store="memory"))
    assert memory.sweep(core.registry.named_locations) == Swept()
    core.close()


def test_who_may_not_see_an_image_copies_none(core: Core) -> None:
    private, public = core.post("a"), core.post("b", is_public=True)
    with pytest.raises(ImageNotFound):
        core.images.copy(BOB, private.id, new())
    with pytest.raises(NotAuthenticated):
        core.images.copy(RequestContext(), public.id, new())
    copied = core.images.copy(BOB, public.id, new())
    assert (copied.owner, copied.is_public) == ("bob", False)


def test_a_copy_takes_the_place_of_another_image(core: Core) -> None:
    source, old = core.post("a", b"new"), core.post("b", b"old")
    protected = core.post("c", protected=True)
    core.images.copy(ALICE, source.id, new("b"), replacing=old.id)
    with pytest.raises(ImageNotFound):
        core.images.get(ALICE, old.id)
    with pytest.raises(ProtectedImage):
        core.images.copy(ALICE, source.id, new("c"), replacing=protected.id)
    with pytest.raises(Forbidden):
        core.images.copy(BOB, core.post("d", is_public=True).id, new("c", owner="alice"))
    assert sweep(registry=core.registry, stores={"file": core.store}) == Swept()


def test_of_an_image_without_data_a_copy_waits_for_them_too(core: Core) -> None:
    queued = core.post("a", None, size=7)
    copied = core.images.copy(ALICE, queued.id, new())
    assert (copied.status, copied.size) == (ImageStatus.QUEUED, 7)
    saving = core.registry.replace(
        _saving(core.registry.get(queued.id)), expected_revision=core.registry.get(queued.id).revision
    )
    with pytest.raises(WrongStatus):
        core.images.copy(ALICE, saving.id, new())


def _saving(image: Image) -> Image:
    return replace(image, status=ImageStatus.SAVING, location=Location(store="file", key="0" * 32))


def test_what_is_too_large_or_gone_is_not_copied_and_leaves_nothing(tmp_path: Path) -> None:
    core = Core.at(tmp_path)
    source = core.post("a", b"data")
    stingy = Images(registry=core.registry, stores={"file": core.store}, default_store="file", max_upload=3)
    with pytest.raises(UploadTooLarge):
        stingy.copy(ALICE, source.id, new())
    assert source.location is not None
    file = tmp_path / "file" / source.location.key[:2] / source.location.key
    file.write_bytes(b"torn")
    os.truncate(file, 2)
    with pytest.raises(DataMissing):
        core.images.copy(ALICE, source.id, new())
    file.unlink()
    with pytest.raises(DataMissing):
        core.images.copy(ALICE, source.id, new())
    assert core.store.sweep(core.registry.named_locations) == Swept()
    core.close()


class Died(BaseException):
    """The process ends here."""


class DyingStore(FileStore):
    """A store whose process dies right after data were copied."""

    def copy(self, key: str, location: Location, *, checksum: str) -> Stored:
        super().copy(key, location, checksum=checksum)
        raise Died


def test_a_crash_in_the_middle_leaves_no_image_and_what_a_sweep_takes(tmp_path: Path) -> None:
    core = Core.at(tmp_path, DyingStore(path=tmp_path / "file", sync=False))
    source = core.post("a", b"data")
    with pytest.raises(Died):
        core.images.copy(ALICE, source.id, new())
    assert [image.id for image in core.registry.changes(since=0).images] == [source.id]
    assert sweep(registry=core.registry, stores={"file": core.store}).orphans == 1
    assert data_of(core, source) == b"data"
    core.close()


def test_an_image_that_is_deleted_while_it_is_copied_is_copied_or_missing(core: Core) -> None:
    for turn in range(10):
        source = core.post(f"a{turn}", b"data" * 1000)
        started = threading.Barrier(2)

        def delete(source: Image = source, started: threading.Barrier = started) -> None:
            started.wait()
            core.images.delete(ALICE, source.id)

        deleting = threading.Thread(target=delete)
        deleting.start()
        started.wait()
        try:
            copied = core.images.copy(ALICE, source.id, new(f"copy{turn}"))
        except (ImageNotFound, DataMissing):
            copied = None
        deleting.join()
        assert copied is None or data_of(core, copied) == b"data" * 1000
    assert sweep(registry=core.registry, stores={"file": core.store}) == Swept()


# ---- files


def test_a_copied_file_has_what_describes_it_and_is_the_callers(core: Core, tree: ImageTree) -> None:
    put(tree, "a", b"data", {"type": b"machine", "property.distro": b"debian", "min_disk": b"3", "disk_format": b"raw"})
    give(tree, "a", "is_public", "true")
    give(tree, "a", "protected", "true")
    tree.set_times(tree.lookup("a"), 1_000_000_000_000)
    tree.make_folder("f")
    copied = tree.copy("a", "f/b").entry
    assert (copied.path, copied.kind, copied.size, copied.mtime_ns) == ("f/b", EntryKind.IMAGE, 4, 1_000_000_000_000)
    fields = ("type", "property.distro", "min_disk", "disk_format", "is_public", "protected", "owner", "checksum")
    before, after = ({field: get(tree, path, field) for field in fields} for path in ("a", "f/b"))
    assert after == before | {"protected": "False"}
    assert get(tree, "a", "id") != get(tree, "f/b", "id")
    # Somebody else's is copied for oneself.
    bob = core.tree(BOB)
    bob.copy("a", "mine")
    assert (get(bob, "mine", "owner"), get(bob, "mine", "is_public"), read(bob, "mine")) == ("bob", "False", b"data")


def test_a_copy_onto_an_image_takes_its_place_and_its_visibility(core: Core, tree: ImageTree) -> None:
    put(tree, "a", b"new", {"type": b"kernel"})
    old = put(tree, "b", b"old", {"property.k": b"v", "is_public": b"true"})
    with pytest.raises(PathTaken):
        tree.copy("a", "b", replaces=False)
    tree.copy("a", "b")
    assert (read(tree, "b"), get(tree, "b", "type"), get(tree, "b", "is_public")) == (b"new", "kernel", "True")
    assert [name for name in tree.list_xattrs(tree.lookup("b")) if "property" in name] == []
    with pytest.raises(ImageNotFound):
        core.images.get(ALICE, old.id)


def test_an_admin_copies_onto_anybodys_and_it_stays_theirs(core: Core, tree: ImageTree) -> None:
    put(tree, "b", b"old")
    admin = core.tree(ADMIN)
    put(admin, "a", b"new")
    admin.copy("a", "b")
    assert (read(tree, "b"), get(tree, "b", "owner")) == (b"new", "alice")


def test_what_is_not_yet_an_image_is_copied_too(tree: ImageTree) -> None:
    put_staged(tree, ".part", b"staged")
    put(tree, "image", b"image", {"property.k": b"v"})
    tree.copy(".part", ".other")
    tree.copy(".part", "plain")
    tree.copy("image", ".work")
    assert [tree.lookup(path).kind for path in (".other", "plain", ".work")] == [
        EntryKind.STAGED,
        EntryKind.IMAGE,
        EntryKind.STAGED,
    ]
    assert [read(tree, path) for path in (".other", "plain", ".work")] == [b"staged", b"staged", b"image"]
    tree.rename(".work", "image2")
    assert (get(tree, "image2", "property.k"), read(tree, "image2")) == ("v", b"image")
    tree.copy("image", ".other")
    assert read(tree, ".other") == b"image"


def test_holes_stay_holes_in_a_copy_that_is_not_yet_an_image(tree: ImageTree) -> None:
    staged = put_staged(tree, ".part", b"begin")
    staged.truncate(64 << 20)
    copied = tree.copy(".part", ".copy").entry
    assert copied.size == 64 << 20
    assert tree.allocated(copied) < 4 << 20
    assert copied.staged is not None
    assert copied.staged.read_at(0, 6) == b"begin\0"


def test_a_queued_image_is_copied_as_one_that_waits(core: Core, tree: ImageTree) -> None:
    core.post("a", None, size=9)
    assert tree.copy("a", "b").entry.kind is EntryKind.QUEUED
    assert tree.lookup("b").size == 9


REFUSED = [
    ("not-there", "x", PathNotFound),
    ("a", "not/there", PathNotFound),
    ("a", "a", InvalidRequest),
    ("a", "", InvalidRequest),
    ("", "f/copy", InvalidRequest),
    ("a", "b/below", NotAFolder),
    ("a", "f", IsAFolder),
    ("f", "a", NotAFolder),
    ("f", "f/g/h", InvalidRequest),
    ("f", "full", FolderNotEmpty),
    ("a", ".glance/x", Forbidden),
    (".glance/errors", "x", Forbidden),
    ("a", "protected", ProtectedImage),
    ("a", "public", Forbidden),
]


@pytest.mark.parametrize(("source", "destination", "error"), REFUSED)
def test_what_can_not_be_is_refused_and_changes_nothing(
    core: Core, tree: ImageTree, source: str, destination: str, error: type[Exception]
) -> None:
    core.post("public", context=BOB, is_public=True)
    core.post("protected", protected=True)
    for folder in ("f", "f/g", "full"):
        tree.make_folder(folder)
    for path in ("a", "b", "full/x"):
        put(tree, path)
    before = walk(tree)
    with pytest.raises(error):
        tree.copy(source, destination)
    assert walk(tree) == before


def test_a_copy_without_room_leaves_nothing(tmp_path: Path) -> None:
    core = Core.at(tmp_path, MemoryStore(capacity=6))
    tree = core.tree()
    core.post("a", b"data")
    with pytest.raises(StoreFull):
        tree.copy("a", "b")
    assert names(tree) == ["a"]
    core.close()


# ---- folders


def test_a_folder_is_copied_with_all_that_the_caller_sees_in_it(core: Core, tree: ImageTree) -> None:
    for path in ("a/b/c", "a/d", "a/b/e"):
        core.post(path, path.encode())
    core.post("a/d", b"a namesake")
    core.post("a/of-bob", b"bob's", context=BOB, is_public=True)
    core.post("a/private", context=BOB)
    tree.make_folder("a/empty")
    put_staged(tree, "a/.part", b"staged")
    tree.change_dead_properties(tree.lookup("a"), values={"{}p": "1"})
    tree.change_dead_properties(tree.lookup("a/b"), values={"{}p": "2"})
    copied = tree.copy("a", "z")
    assert (copied.entry.path, copied.entry.kind, copied.failures) == ("z", EntryKind.FOLDER, ())
    below = {path.removeprefix("a/"): read(tree, path) for path, entry in walk(tree, "a").items() if entry.size}
    assert {path.removeprefix("z/"): read(tree, path) for path, entry in walk(tree, "z").items() if entry.size} == below
    assert len(below) == 6
    assert "empty" in names(tree, "z")
    for path, value in (("z", "1"), ("z/b", "2")):
        assert list(tree.dead_properties([tree.lookup(path)]).values()) == [{"{}p": value}]
    assert get(tree, "z/of-bob", "owner") == "alice"


def test_a_shallow_copy_is_the_folder_alone(core: Core, tree: ImageTree) -> None:
    core.post("a/b")
    tree.copy("a", "z", is_deep=False)
    assert names(tree, "z") == []
    # An empty folder that is there is as good as none.
    tree.copy("a", "z")
    assert names(tree, "z") == ["b"]


def test_what_fails_in_a_folder_is_told_and_keeps_nothing_else_back(core: Core, tree: ImageTree) -> None:
    for path in ("a/b", "a/c/d", "a/e"):
        core.post(path, path.encode())
    (lost,) = [image for image in core.registry.changes(since=0).images if image.name == "a/b"]
    assert lost.location is not None
    core.store.delete(lost.location)
    copied = tree.copy("a", "z")
    assert [(failure.path, type(failure.error)) for failure in copied.failures] == [("z/b", DataMissing)]
    assert sorted(path for path, entry in walk(tree, "z").items() if entry.size) == ["z/c/d", "z/e"]


def test_a_folder_that_has_no_room_is_copied_as_far_as_there_was(tmp_path: Path) -> None:
    core = Core.at(tmp_path, MemoryStore(capacity=14))
    tree = core.tree()
    for path in ("a/b", "a/c"):
        core.post(path, b"datas")
    with pytest.raises(StoreFull):
        tree.copy("a", "z")
    assert names(tree, "a") == ["b", "c"]
    core.close()
