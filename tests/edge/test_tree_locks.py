# SPDX-License-Identifier: Apache-2.0
"""Write locks and dead properties in the tree: whose things they guard, and what is refused for them where.

Threading: none of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from glancefs.context import RequestContext
from glancefs.errors import (
    Forbidden,
    InvalidPath,
    Locked,
    LockNotFound,
    NotAFolder,
    NotAuthenticated,
    PathNotFound,
)
from glancefs.locks import MOST_SECONDS
from glancefs.model import ImageChanges, ImageStatus, ImageType, NewImage
from glancefs.stores.base import Swept
from glancefs.sweep import sweep
from glancefs.tree import ImageTree
from tests.support.trees import ADMIN, ALICE, BOB, Core, give, names, put, put_staged, read

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> Iterator[Core]:
    core = Core.at(tmp_path, clock=clock)
    yield core
    core.close()


@pytest.fixture
def tree(core: Core) -> ImageTree:
    return core.tree()


CHANGES: dict[str, Callable[[ImageTree], object]] = {
    "write": lambda tree: put(tree, "a/b", b"new"),
    "remove": lambda tree: tree.remove("a/b"),
    "rename away": lambda tree: tree.rename("a/b", "z"),
    "rename onto": lambda tree: tree.rename("other", "a/b"),
    "copy onto": lambda tree: tree.copy("other", "a/b"),
    "set an attribute": lambda tree: give(tree, "a/b", "property.k", "v"),
    "remove an attribute": lambda tree: tree.remove_xattr(tree.lookup("a/b"), "user.glance.property.old"),
    "rename by attribute": lambda tree: give(tree, "a/b", "name", "z"),
    "set the time": lambda tree: tree.set_times(tree.lookup("a/b"), 1),
    "keep a property": lambda tree: tree.change_dead_properties(tree.lookup("a/b"), values={"{}p": "1"}),
    "rename its folder": lambda tree: tree.rename("a", "z"),
    "rename onto by a staged file": lambda tree: tree.rename("a/.part", "a/b"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_locked_changes_only_for_who_presents_the_token(
    core: Core, tree: ImageTree, change: Callable[[ImageTree], object]
) -> None:
    tree.make_folder("a")
    put(tree, "a/b", b"old")
    give(tree, "a/b", "property.old", "1")
    put(tree, "other", b"other")
    put_staged(tree, "a/.part", b"part")
    lock = tree.lock("a/b", owner_xml="<x/>", seconds=60)
    with pytest.raises(Locked, match="'a/b' is locked by alice until"):
        change(tree)
    with pytest.raises((Locked, PathNotFound)):
        # Somebody else's token; a staged file is nobody else's to see at all.
        change(core.tree(ADMIN).presenting([lock.token]))
    assert read(tree, "a/b") == b"old"
    assert read(tree, "other") == b"other"
    change(tree.presenting(["urn:uuid:another", lock.token]))


FOLDER_CHANGES: dict[str, Callable[[ImageTree], object]] = {
    "create": lambda tree: tree.create("a/new"),
    "create a dot-file": lambda tree: tree.create("a/.new"),
    "make a folder": lambda tree: tree.make_folder("a/new"),
    "remove": lambda tree: tree.remove("a/b"),
    "remove a folder": lambda tree: tree.remove_folder("a/empty"),
    "rename in": lambda tree: tree.rename("other", "a/other"),
    "rename out": lambda tree: tree.rename("a/b", "b"),
    "rename within": lambda tree: tree.rename("a/b", "a/c"),
    "copy in": lambda tree: tree.copy("other", "a/other"),
    "copy a folder in": lambda tree: tree.copy("folder", "a/folder"),
    "keep a property": lambda tree: tree.change_dead_properties(tree.lookup("a"), values={"{}p": "1"}),
    "date": lambda tree: tree.set_times(tree.lookup("a"), 1),
    "rename it": lambda tree: tree.rename("a", "z"),
    "lock a new name": lambda tree: tree.lock("a/new"),
}


@pytest.mark.parametrize("is_deep", [False, True])
@pytest.mark.parametrize("change", FOLDER_CHANGES.values(), ids=FOLDER_CHANGES.keys())
def test_a_locked_folder_gets_and_loses_nothing(
    tree: ImageTree, change: Callable[[ImageTree], object], *, is_deep: bool
) -> None:
    for path in ("a", "a/empty", "folder"):
        tree.make_folder(path)
    put(tree, "a/b")
    put(tree, "other")
    lock = tree.lock("a", is_deep=is_deep)
    with pytest.raises(Locked):
        change(tree)
    if is_deep and change is FOLDER_CHANGES["lock a new name"]:
        # Its own deep lock is in the way of a second one, whoever asks.
        return
    change(tree.presenting([lock.token]))


def test_a_shallow_lock_of_a_folder_leaves_what_is_in_it_alone(tree: ImageTree) -> None:
    tree.make_folder("a")
    put(tree, "a/b")
    tree.lock("a")
    put(tree, "a/b", b"new")
    give(tree, "a/b", "property.k", "v")
    assert read(tree, "a/b") == b"new"


def test_a_lock_outlives_what_is_put_in_its_place_and_not_what_is_removed(tree: ImageTree) -> None:
    put(tree, "a", b"old")
    lock = tree.lock("a")
    holder = tree.presenting([lock.token])
    put(holder, "a", b"new")
    assert [lock.token for lock in tree.locks_on("a")] == [lock.token]
    holder.remove("a")
    assert tree.locks_on("a") == []
    put(tree, "a", b"free")


def test_a_path_where_nothing_is_can_be_locked_and_then_written_by_the_holder(tree: ImageTree) -> None:
    lock = tree.lock("new", seconds=60)
    assert names(tree) == []
    with pytest.raises(Locked):
        tree.create("new")
    put(tree.presenting([lock.token]), "new", b"data")
    with pytest.raises(Locked):
        tree.remove("new")
    tree.unlock("new", lock.token)
    tree.remove("new")


@pytest.mark.expect_log("a: 'a' is locked by alice")
def test_a_lock_that_comes_while_a_file_is_written_refuses_it_at_the_end(core: Core, tree: ImageTree) -> None:
    put(tree, "a", b"old")
    staged = tree.stage(tree.lookup("a"), truncate=True)
    staged.write_at(0, b"new")
    lock = core.tree().lock("a")
    with pytest.raises(Locked):
        tree.publish(staged)
    assert b"locked by alice" in tree.read_document(tree.lookup(".glance/errors"))
    tree.presenting([lock.token]).publish(staged)
    tree.release(staged)
    assert read(tree, "a") == b"new"


def test_staged_files_are_seen_by_every_view_of_the_tree(tree: ImageTree) -> None:
    staged = put_staged(tree.presenting(["urn:uuid:1"]), ".part", b"data")
    assert read(tree, ".part") == b"data"
    lock = tree.lock(".part")
    with pytest.raises(Locked):
        tree.remove(".part")
    with pytest.raises(Locked):
        tree.rename(".part", "whole")
    tree.presenting([lock.token]).rename(".part", "whole")
    assert (tree.locks_on(".part"), read(tree, "whole")) == ([], b"data")
    tree.release(staged)


def test_locks_are_told_where_they_hold(tree: ImageTree) -> None:
    tree.make_folder("a")
    put(tree, "a/b")
    deep = tree.lock("a", is_deep=True, is_shared=True, owner_xml="<deep/>")
    own = tree.lock("a/b", is_shared=True, owner_xml="<own/>", seconds=100)
    assert [(lock.path, lock.owner_xml, lock.user) for lock in tree.locks_on("a/b")] == [
        ("a", "<deep/>", "alice"),
        ("a/b", "<own/>", "alice"),
    ]
    assert (own.expires_at - own.created_at, deep.expires_at) == (
        timedelta(seconds=100),
        NOON + timedelta(seconds=MOST_SECONDS),
    )
    assert [lock.token for lock in tree.locks_below("")] == [deep.token, own.token]
    assert [lock.token for lock in tree.locks_below("a")] == [own.token]
    # Of shared locks that hold for one path, one token is enough.
    give(tree.presenting([deep.token]), "a/b", "property.k", "1")
    give(tree.presenting([own.token]), "a/b", "property.k", "2")
    with pytest.raises(Locked) as refused:
        tree.lock("a/b")
    assert refused.value.path in {"a", "a/b"}


def test_a_lock_is_refreshed_and_given_back_where_it_holds_by_who_holds_it(
    core: Core, tree: ImageTree, clock: Clock
) -> None:
    tree.make_folder("a")
    put(tree, "a/b")
    lock = tree.lock("a", is_deep=True, seconds=60)
    for path, token in (("z", lock.token), ("", lock.token), ("a/b", "urn:uuid:other")):
        with pytest.raises(LockNotFound):
            tree.refresh_lock(path, token)
        with pytest.raises(LockNotFound):
            tree.unlock(path, token)
    with pytest.raises(LockNotFound):
        core.tree(BOB).unlock("a", lock.token)
    clock.now += timedelta(seconds=59)
    assert tree.refresh_lock("a/b", lock.token, seconds=60).expires_at == NOON + timedelta(seconds=119)
    clock.now += timedelta(seconds=59)
    with pytest.raises(Locked):
        tree.remove("a/b")
    clock.now += timedelta(seconds=1)
    tree.remove("a/b")
    with pytest.raises(LockNotFound):
        tree.unlock("a", lock.token)


def test_what_can_not_be_locked_is_refused(core: Core, tree: ImageTree) -> None:
    core.post("public", is_public=True, context=BOB)
    put(tree, "file")
    for path, error in [
        ("public", Forbidden),
        (".glance", Forbidden),
        ("not/there", PathNotFound),
        ("file/below", NotAFolder),
        ("a\nb", InvalidPath),
    ]:
        with pytest.raises(error):
            tree.lock(path)
    with pytest.raises(NotAuthenticated):
        core.tree(RequestContext()).lock("x")
    assert not tree.locks_below("")


def test_one_users_locks_are_nothing_to_another(core: Core, tree: ImageTree) -> None:
    put(tree, "a")
    tree.lock("a", is_deep=True)
    bob = core.tree(BOB)
    assert (list(bob.locks_on("a")), list(bob.locks_below(""))) == ([], [])
    put(bob, "a", b"bob's")
    bob.lock("a")
    bob.presenting([]).copy("a", "b")


def test_an_admin_meets_the_locks_of_all_and_breaks_them(core: Core, tree: ImageTree) -> None:
    put(core.tree(BOB), "a", b"bob's, and first")
    put(tree, "a", b"alice's")
    admin = core.tree(ADMIN)
    theirs = tree.lookup("a").image
    assert theirs is not None
    beside = f"a~{theirs.id}"
    lock = tree.lock("a")
    assert [found.path for found in admin.locks_on(beside)] == [beside]
    assert admin.locks_on("a") == []
    give(admin, "a", "property.k", "v")
    with pytest.raises(Locked):
        give(admin, beside, "property.k", "v")
    admin.unlock(beside, lock.token)
    give(admin, beside, "property.k", "v")
    # And an admin's lock of somebody's image is kept where its owner has it.
    assert admin.lock(beside).path == beside
    with pytest.raises(Locked):
        tree.remove("a")
    put(core.tree(BOB), "a", b"bob's again")


def test_an_admins_lock_of_a_folder_holds_for_everybody(core: Core, tree: ImageTree) -> None:
    admin = core.tree(ADMIN)
    admin.make_folder("shared")
    tree.make_folder("shared")
    lock = admin.lock("shared", is_deep=True)
    with pytest.raises(Locked, match="by root"):
        tree.create("shared/a")
    assert [found.token for found in tree.locks_on("shared/a")] == [lock.token]
    with pytest.raises(LockNotFound):
        tree.unlock("shared", lock.token)


def test_the_use_cases_by_id_meet_the_same_locks(core: Core, tree: ImageTree) -> None:
    image, queued = core.post("a/b"), core.post("a/queued", None)
    lock = tree.lock("a", is_deep=True)
    holder = RequestContext(user="alice", lock_tokens=frozenset({lock.token}))
    for do in (
        lambda who: core.images.update(who, image.id, ImageChanges(is_public=True)),
        lambda who: core.images.declare_size(who, queued.id, 5),
        lambda who: core.images.delete(who, queued.id),
        lambda who: core.images.delete(who, image.id),
        lambda who: core.post("a/new", context=who),
    ):
        with pytest.raises(Locked):
            do(ALICE)
        do(holder)
    assert [path.name for path in (core.store.staging_folder or core.folder).glob("[0-9a-f]*")] == []


def test_an_upload_into_a_locked_image_is_refused_and_the_image_waits_on(core: Core, tree: ImageTree) -> None:
    queued = core.post("a", None)
    lock = tree.lock("a")
    with pytest.raises(Locked):
        put(tree, "a", b"data")
    assert core.images.get(ALICE, queued.id) == queued
    put(tree.presenting([lock.token]), "a", b"data")
    assert read(tree, "a") == b"data"


class Meanwhile:
    """A source during which something else happens, before its first byte."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do
        self._is_over = False

    def readinto(self, buffer: memoryview, /) -> int:
        if self._is_over:
            return 0
        self._do()
        self._is_over = True
        buffer[:4] = b"data"
        return 4


def test_what_is_locked_asks_for_no_byte(core: Core, tree: ImageTree) -> None:
    queued = core.post("a/queued", None)
    tree.lock("a", is_deep=True)

    def fail() -> None:
        raise AssertionError("the data were asked for")

    with pytest.raises(Locked):
        core.images.add(ALICE, NewImage(name="a/b", type=ImageType.RAW), Meanwhile(fail))
    with pytest.raises(Locked):
        core.images.upload(ALICE, queued.id, Meanwhile(fail))
    assert core.images.get(ALICE, queued.id) == queued


def test_a_lock_that_comes_during_an_upload_finds_it_begun_or_refuses_it(core: Core, tree: ImageTree) -> None:
    queued = core.post("queued", None)
    uploaded = core.images.upload(ALICE, queued.id, Meanwhile(lambda: tree.lock("queued")))
    assert (uploaded.status, read(tree, "queued")) == (ImageStatus.AVAILABLE, b"data")
    # What is to be new at a path was not there when that was locked.
    with pytest.raises(Locked):
        core.images.add(ALICE, NewImage(name="new", type=ImageType.RAW), Meanwhile(lambda: tree.lock("new")))
    assert names(tree) == ["queued"]
    assert sweep(registry=core.registry, stores={"file": core.store}) == Swept()


# Dead properties


def test_dead_properties_are_told_of_many_entries_at_once(core: Core, tree: ImageTree) -> None:
    tree.make_folder("a")
    put(tree, "a/b")
    put(tree, "a/c")
    root, folder, image = tree.lookup(""), tree.lookup("a"), tree.lookup("a/b")
    for number, entry in enumerate((root, folder, image)):
        tree.change_dead_properties(entry, values={"{urn:x}p": f"<v>{number}</v>"}, removed=["{urn:x}q"])
    entries = [root, folder, image, tree.lookup("a/c"), tree.lookup(".glance")]
    assert tree.dead_properties(entries) == {
        entry.key: {"{urn:x}p": f"<v>{number}</v>"} for number, entry in enumerate((root, folder, image))
    }
    assert core.tree(BOB).dead_properties([root]) == {}


def test_dead_properties_go_where_the_file_goes(tree: ImageTree) -> None:
    put(tree, "a")
    tree.change_dead_properties(tree.lookup("a"), values={"{}p": "1"})
    tree.rename("a", "b")
    put(tree, "b", b"new")
    tree.copy("b", "c")
    for path in ("b", "c"):
        assert list(tree.dead_properties([tree.lookup(path)]).values()) == [{"{}p": "1"}]
    tree.remove("c")
    put(tree, "c")
    assert tree.dead_properties([tree.lookup("c")]) == {}


def test_what_is_not_the_callers_keeps_nothing_of_theirs(core: Core, tree: ImageTree) -> None:
    core.post("public", is_public=True, context=BOB)
    put_staged(tree, ".part", b"x")
    for path in ("public", ".part", ".glance/errors"):
        with pytest.raises(Forbidden):
            tree.change_dead_properties(tree.lookup(path), values={"{}p": "1"})
    nobody = core.tree(RequestContext())
    with pytest.raises(NotAuthenticated):
        nobody.change_dead_properties(nobody.lookup("public"), values={"{}p": "1"})


def test_a_tree_without_locks_changes_what_it_likes(core: Core) -> None:
    plain = ImageTree(
        images=core.images,
        folders=core.folders,
        staging=core.tree()._staging,
        context=ALICE,
        documents={},
    )
    put(plain, "a")
    assert (plain.locks_on("a"), plain.locks_below(""), plain.dead_properties([plain.lookup("a")])) == ((), (), {})
    with pytest.raises(Forbidden):
        plain.lock("a")
    with pytest.raises(Forbidden):
        plain.change_dead_properties(plain.lookup("a"), values={})
    plain.copy("a", "b")
    plain.remove("a")
