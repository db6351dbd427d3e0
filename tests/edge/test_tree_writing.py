# SPDX-License-Identifier: Apache-2.0
"""The tree over a real registry and a real store: what writing makes, and files that are not yet images.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from glancefs.context import RequestContext
from glancefs.errors import (
    ChecksumMismatch,
    Forbidden,
    ImageNotFound,
    ImmutableImage,
    IsAFolder,
    NotAuthenticated,
    PathTaken,
    ProtectedImage,
    RegistryUnavailable,
    WrongStatus,
)
from glancefs.model import ImageStatus, ImageType
from glancefs.staging import StagedState
from glancefs.stores.memory import MemoryStore
from glancefs.tree import Entry, EntryKind, ImageTree
from tests.support.trees import (
    ALICE,
    BOB,
    KERNEL,
    QCOW2,
    STATUS,
    Core,
    get,
    give,
    names,
    put,
    put_staged,
    read,
    staged_of,
    walk,
)

# ---- writing


def test_what_is_written_becomes_an_image_that_every_door_sees(core: Core, tree: ImageTree) -> None:
    image = put(tree, "a", b"hello")
    assert core.images.get(ALICE, image.id) == image
    assert (image.status, image.size, image.owner, image.is_public) == (ImageStatus.AVAILABLE, 5, "alice", False)
    with core.images.open(ALICE, image.id) as reader:
        assert reader.read_at(0, 9) == b"hello"
    assert tree.pending() == []


def test_a_file_takes_the_place_of_what_came_while_it_was_written(core: Core, tree: ImageTree) -> None:
    """Nobody looked whether there is anything before the image was added: the registry refused it once."""
    staged = tree.create("a")
    staged.write_at(0, b"mine")
    rival = put(core.tree(), "a", b"rival")
    image = tree.publish(staged)
    assert image is not None
    assert (read(tree, "a"), names(tree, "")) == (b"mine", ["a"])
    with pytest.raises(ImageNotFound):
        core.images.get(ALICE, rival.id)


def test_a_file_goes_beside_what_somebody_else_made_public_meanwhile(core: Core, tree: ImageTree) -> None:
    staged = tree.create("a")
    staged.write_at(0, b"mine")
    put(core.tree(BOB), "a", b"bobs", {"is_public": b"True"})
    assert tree.publish(staged) is not None
    assert read(tree, "a") == b"mine"
    assert read(core.tree(BOB), "a") == b"bobs"


def test_a_file_is_seen_on_its_own_mount_before_it_is_an_image(core: Core, tree: ImageTree) -> None:
    tree.make_folder("f")
    staged = tree.create("f/a")
    staged.write_at(3, b"abc")
    entry = staged_of(tree, "f/a")
    assert (entry.size, names(tree, "f")) == (6, ["a"])
    assert names(core.tree(), "f") == []
    with pytest.raises(PathTaken):
        tree.create("f/a")
    assert tree.publish(staged) is not None
    assert read(core.tree(), "f/a") == b"\0\0\0abc"


@pytest.mark.parametrize(
    ("data", "kind"), [(KERNEL, ImageType.KERNEL), (QCOW2, ImageType.MACHINE), (b"x", ImageType.RAW)]
)
def test_the_type_of_a_new_image_is_told_by_its_first_bytes(tree: ImageTree, data: bytes, kind: ImageType) -> None:
    assert put(tree, "a", data).type is kind
    assert put(tree, "b", data, {"type": b"ramdisk"}).type is ImageType.RAMDISK


def test_images_of_a_public_mount_are_public(core: Core) -> None:
    assert put(core.tree(is_public=True), "a").is_public
    assert not put(core.tree(is_public=True), "b", said={"is_public": b"false"}).is_public


def test_writing_a_path_anew_puts_a_new_image_in_place_of_the_old_one(core: Core, tree: ImageTree) -> None:
    old = put(tree, "a", KERNEL, {"property.p": b"1", "is_public": b"true", "disk_format": b"raw"})
    namesake = core.post("a", b"namesake")
    with tree.open(tree.lookup("a")) as reader:
        staged = tree.stage(tree.lookup("a"), truncate=True)
        staged.write_at(0, b"new")
        assert core.images.get(ALICE, old.id) == old
        new = tree.publish(staged)
        assert reader.read_at(0, len(KERNEL)) == KERNEL
    assert new is not None
    assert (new.type, new.is_public, dict(new.properties)) == (ImageType.KERNEL, True, {"p": "1"})
    assert new.disk_format is None
    with pytest.raises(ImageNotFound):
        core.images.get(ALICE, old.id)
    assert read(tree, "a") == b"new"
    assert read(tree, f"a~{namesake.id}") == b"namesake"


def test_data_of_an_image_never_change(core: Core, tree: ImageTree) -> None:
    core.post("a")
    core.post("b", context=BOB, is_public=True)
    core.post("c", protected=True)
    with pytest.raises(ImmutableImage):
        tree.stage(tree.lookup("a"))
    with pytest.raises(Forbidden):
        tree.stage(tree.lookup("b"), truncate=True)
    with pytest.raises(ProtectedImage):
        tree.stage(tree.lookup("c"), truncate=True)
    with pytest.raises(IsAFolder):
        tree.stage(tree.lookup(""))
    for path in (".glance/errors", ".glance/by-id/1"):
        with pytest.raises(Forbidden):
            tree.stage(tree.lookup(path))


# ---- files that are not yet images


def test_a_file_without_a_byte_is_queued_and_takes_its_data_later(core: Core, tree: ImageTree) -> None:
    staged = tree.create("a")
    staged.truncate(1000)
    image = tree.publish(staged)
    assert image is not None
    assert (image.status, image.size) == (ImageStatus.QUEUED, 1000)
    entry = tree.lookup("a")
    assert (entry.kind, entry.size) == (EntryKind.QUEUED, 1000)
    again = tree.stage(entry)
    assert (again.size, staged_of(tree, "a").size) == (1000, 1000)
    again.write_at(0, KERNEL[:600])
    filled = tree.publish(again)
    assert filled is not None
    assert (filled.id, filled.status, filled.size, filled.type) == (
        image.id,
        ImageStatus.AVAILABLE,
        1000,
        ImageType.KERNEL,
    )
    assert core.images.get(ALICE, image.id) == filled


def test_a_queued_file_changes_its_size_and_may_end_with_another_one(tree: ImageTree) -> None:
    image = put(tree, "a", b"")
    staged = tree.stage(tree.lookup("a"))
    staged.truncate(10)
    assert tree.publish(staged) == tree.lookup("a").image
    assert (tree.lookup("a").size, tree.lookup("a").key) == (10, f"image:{image.id}")
    assert put(tree, "a", b"abc").id == image.id
    assert read(tree, "a") == b"abc"


def test_an_image_queued_through_another_door_takes_its_data_here(core: Core, tree: ImageTree) -> None:
    image = core.post("a", None, type=ImageType.KERNEL, size=3, properties={"p": "1"})
    filled = put(tree, "a", QCOW2, {"property.q": b"2"})
    assert (filled.id, filled.type, dict(filled.properties)) == (image.id, ImageType.KERNEL, {"p": "1", "q": "2"})


@pytest.mark.expect_log("have the checksum")
def test_data_that_are_not_those_declared_stay_staged(core: Core, tree: ImageTree) -> None:
    core.post("a", None, checksum="sha256:" + "0" * 64)
    with pytest.raises(ChecksumMismatch):
        put(tree, "a", b"abc")
    entry = staged_of(tree, "a")
    assert read(tree, "a") == b"abc"
    assert tree.get_xattr(entry, STATUS) == b"failed"
    assert b"sha256" in tree.read_document(tree.lookup(".glance/errors"))


def test_an_upload_through_another_door_is_not_joined(core: Core, tree: ImageTree) -> None:
    image = core.post("a", None)
    saving = core.registry.get(image.id)
    core.registry.replace(replace(saving, status=ImageStatus.SAVING), expected_revision=saving.revision)
    with pytest.raises(WrongStatus):
        tree.stage(tree.lookup("a"))


@pytest.mark.parametrize("how", ["queued", "staged"])
def test_setting_the_status_publishes_a_file_as_it_is(tree: ImageTree, how: str) -> None:
    staged = tree.create("a")
    staged.truncate(1000)
    if how == "queued":
        tree.publish(staged)
    give(tree, "a", "status", "available")
    entry = tree.lookup("a")
    assert (entry.kind, read(tree, "a")) == (EntryKind.IMAGE, bytes(1000))


def test_a_copied_status_publishes_no_file_at_work(tree: ImageTree) -> None:
    staged = tree.create("a")
    tree.set_xattr(tree.lookup("a"), STATUS, b"available", is_open=True)
    dotted = tree.create(".b")
    give(tree, ".b", "status", "available")
    assert (staged.state, dotted.state) == (StagedState.STAGED, StagedState.STAGED)


def test_dot_files_are_no_images_until_they_get_a_plain_name(core: Core, tree: ImageTree) -> None:
    staged = tree.create(".a.XXXXXX")
    staged.write_at(0, b"abc")
    assert not tree.will_publish(staged)
    assert tree.publish(staged) is None
    assert names(tree) == [".a.XXXXXX"]
    tree.rename(".a.XXXXXX", ".a")
    assert read(tree, ".a") == b"abc"
    assert names(core.tree()) == []
    entry = tree.rename(".a", "a")
    assert entry.image is not None
    assert (staged.state, staged.image) == (StagedState.PUBLISHED, entry.image)
    assert names(core.tree()) == ["a"]


def test_a_dot_file_renamed_onto_an_image_takes_its_place(tree: ImageTree) -> None:
    old = put(tree, "a", KERNEL, {"property.p": b"1"})
    put_staged(tree, ".a", b"new")
    entry = tree.rename(".a", "a")
    assert entry.image is not None
    assert (entry.image.type, dict(entry.image.properties)) == (ImageType.KERNEL, {"p": "1"})
    assert entry.image.id != old.id
    assert names(tree) == ["a"]


def test_an_image_with_a_dot_name_is_an_image(core: Core, tree: ImageTree) -> None:
    core.post(".a", b"abc")
    assert read(tree, ".a") == b"abc"
    assert tree.rename(".a", ".b").kind is EntryKind.IMAGE


@pytest.mark.expect_log("its writer was killed")
def test_what_a_killed_writer_left_is_pending_until_it_is_removed_or_moved(core: Core, tree: ImageTree) -> None:
    tree.make_folder("f")
    for path in ("f/a", "b", ".c"):
        staged = put_staged(tree, path, path.encode())
        tree.abort(staged, "its writer was killed")
        tree.abort(staged, "again")
    assert (names(tree), names(tree, "f")) == (["f"], [])
    assert names(tree, ".glance/pending") == [".c", "a", "b"]
    assert get(tree, ".glance/pending/a", "status") == "aborted"
    assert tree.rename(".glance/pending/a", "f/a").kind is EntryKind.IMAGE
    tree.remove(".glance/pending/b")
    tree.rename(".glance/pending/.c", ".d")
    assert read(tree, "f/a") == b"f/a"
    assert names(tree, ".glance/pending") == []
    assert staged_of(tree, ".d").staged is not None
    assert b"killed" in tree.read_document(tree.lookup(".glance/errors"))


@pytest.mark.expect_log("its writer was killed")
def test_a_killed_replacement_leaves_the_old_image(tree: ImageTree) -> None:
    put(tree, "a", b"old")
    staged = tree.stage(tree.lookup("a"), truncate=True)
    staged.write_at(0, b"half")
    tree.abort(staged, "its writer was killed")
    assert read(tree, "a") == b"old"
    assert names(tree, ".glance/pending") == ["a"]
    empty = tree.stage(tree.lookup("a"), truncate=True)
    tree.abort(empty, "nothing was written")
    assert (empty.state, read(tree, "a")) == (StagedState.DISCARDED, b"old")


def test_what_a_mount_left_is_pending_at_the_next_one(core: Core, tree: ImageTree) -> None:
    put_staged(tree, "a", b"half")
    put_staged(tree, ".b", b"dotted")
    tree.close()
    after = core.tree()
    assert (names(after), names(after, ".glance/pending")) == ([], [".b", "a"])
    give(after, ".glance/pending/a", "status", "available")
    assert read(after, "a") == b"half"


def test_removing_a_file_at_work_removes_what_it_stands_for(tree: ImageTree) -> None:
    put(tree, "a", b"old")
    staged = tree.stage(tree.lookup("a"), truncate=True)
    tree.remove("a")
    assert (names(tree), staged.state) == ([], StagedState.DISCARDED)
    staged.write_at(0, b"into nothing")
    assert tree.publish(staged) is None


def test_a_file_at_work_is_renamed_with_what_it_stands_for(tree: ImageTree) -> None:
    old = put(tree, "a", KERNEL)
    put(tree, "b", b"goes")
    staged = tree.stage(tree.lookup("a"), truncate=True)
    staged.write_at(0, b"new")
    tree.rename("a", "b")
    new = tree.publish(staged)
    assert new is not None
    assert (new.name, new.type, new.id != old.id, set(walk(tree))) == ("b", ImageType.KERNEL, True, {"b"})


@pytest.mark.expect_log("The registry")
def test_a_failed_publication_keeps_the_file_and_can_be_tried_again(
    core: Core, tree: ImageTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = put_staged(tree, "a", b"abc")

    def fail(*_: object, **__: object) -> None:
        raise RegistryUnavailable("The registry does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(core.registry, "add", fail)
        with pytest.raises(RegistryUnavailable):
            tree.publish(staged)
    assert (staged.state, read(tree, "a")) == (StagedState.FAILED, b"abc")
    staged.write_at(3, b"d")
    assert tree.publish(staged) is not None
    assert read(tree, "a") == b"abcd"


def test_two_who_open_a_file_at_once_write_one_file(tree: ImageTree) -> None:
    put(tree, "a", b"old")
    entry = tree.lookup("a")
    with ThreadPoolExecutor(8) as pool:
        opened = set(pool.map(lambda _: tree.stage(entry, truncate=True).key, range(8)))
    assert len(opened) == 1


def test_two_mounts_that_make_one_path_leave_the_later_file(core: Core, tree: ImageTree) -> None:
    other = core.tree()
    first, second = put_staged(tree, "a", b"first"), put_staged(other, "a", b"second")
    tree.publish(first)
    other.publish(second)
    assert (names(tree), read(tree, "a")) == (["a"], b"second")


def test_stores_that_adopt_no_files_are_given_the_bytes(tmp_path: Path) -> None:
    core = Core.at(tmp_path, MemoryStore())
    tree = core.tree()
    assert read(tree, put(tree, "a", b"abc").name) == b"abc"
    assert [path.name for path in (tmp_path / "staged").rglob("*") if path.is_file()] == ["lock"]
    core.close()


def test_sparse_images_say_what_they_take(tree: ImageTree) -> None:
    staged = tree.create("a")
    staged.write_at(50 << 20, b"end")
    assert tree.allocated(tree.lookup("a")) < 1 << 20
    tree.publish(staged)
    assert tree.allocated(tree.lookup("a")) < 1 << 20
    assert tree.allocated(tree.lookup("")) == 0


def test_who_is_nobody_only_looks(core: Core) -> None:
    core.post("a", is_public=True)
    tree = core.tree(RequestContext())
    assert names(tree) == ["a"]
    acts: list[Callable[[], object]] = [
        *(lambda: tree.create("b"), lambda: tree.make_folder("f"), lambda: tree.rename("a", "b")),
    ]
    for act in acts:
        with pytest.raises((NotAuthenticated, Forbidden)):
            act()


@pytest.mark.parametrize("act", ["rename", "remove"])
def test_what_is_done_to_a_file_that_is_just_being_published_is_done_to_the_image(tree: ImageTree, act: str) -> None:
    staged = put_staged(tree, "a", b"abc")
    entry = tree.lookup("a")
    assert entry.staged is staged
    looking = tree._looking
    really = looking.lookup

    def lookup(path: str) -> Entry:
        """Show the file at work, and publish it before anything can be done to it."""
        if path != "a":
            return really(path)
        tree.publish(staged)
        return entry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "lookup", lookup)
        if act == "rename":
            tree.rename("a", "b")
        else:
            tree.remove("a")
    assert names(tree) == (["b"] if act == "rename" else [])
