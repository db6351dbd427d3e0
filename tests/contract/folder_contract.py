# SPDX-License-Identifier: Apache-2.0
"""What every registry promises about the tree, as tests: one suite, run over each backend.

Answers for the sentences of `glancefs.registries.folders`, held against a plain model of them. A backend's test class
says how to make a registry.

Threading: one test races threads on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glancefs.errors import (
    FolderNotEmpty,
    Forbidden,
    ImageNotFound,
    InvalidQuery,
    PathNotFound,
    PathTaken,
    PathTooLong,
    StaleImage,
)
from glancefs.model import Image, ImageStatus, ImageType
from glancefs.paths import name_of, path_of, split
from glancefs.registries.base import Registry, Superseded
from glancefs.registries.folders import Folder, Found, OutlinedRegistry, View, outlines_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
ALICE, BOB, NOBODY = View(viewer="alice"), View(viewer="bob"), View()
ADMIN = View(viewer="root", sees_all=True)
VIEWS = [ALICE, BOB, NOBODY, ADMIN]

COMPONENTS = st.sampled_from(["a", "b", "a!", "a0", "", "..", ".glance", "é", "\U0010ffff", "%_", "x" * 300, "a\n"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join)
MANY_EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def image(name: str, owner: str | None = "alice", **fields: Any) -> Image:
    values: dict[str, Any] = {
        "id": "",
        "name": name,
        "type": ImageType.RAW,
        "status": ImageStatus.AVAILABLE,
        "size": 0,
        "store": "file",
        "owner": owner,
        "is_public": False,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Image(**values | fields)


def is_own(one: Image, view: View) -> bool:
    return view.viewer is not None and one.owner == view.viewer


def is_visible(one: Image, view: View) -> bool:
    is_listed = one.is_public and one.status is ImageStatus.AVAILABLE
    return is_listed or view.sees_all or is_own(one, view)


def names_in(registry: Registry, path: str, view: View, *, limit: int = 1000) -> list[str]:
    return [one.name for one in images_in(registry, path, view, limit=limit)]


def images_in(registry: Registry, path: str, view: View, *, limit: int = 1000) -> list[Image]:
    found: list[Image] = []
    marker: str | None = None
    while True:
        page = registry.folders.images_in(path, view, after=marker, limit=limit)
        if isinstance(registry.folders, OutlinedRegistry):
            outlines = registry.folders.outlines_in(path, view, after=marker, limit=limit)
            assert outlines == outlines_of(page)
        found.extend(page.images)
        if (marker := page.marker) is None:
            return found


def folders_in(registry: Registry, path: str, view: View, *, limit: int = 1000) -> list[str]:
    found: list[str] = []
    while True:
        page = registry.folders.folders_in(path, view, after=found[-1] if found else None, limit=limit)
        found.extend(folder.path for folder in page)
        if len(page) < limit:
            return found


def superseded(old: Image) -> Superseded:
    return Superseded(image_id=old.id, expected_revision=old.revision, deleted_at=LATER)


def make_folder(registry: Registry, path: str, owner: str = "alice") -> Folder:
    return registry.folders.add_folder(Folder(path=path, owner=owner, created_at=NOW))


def ancestors(path: str) -> Iterator[str]:
    while path := split(path)[0]:
        yield path


def folders_of_model(images: Sequence[Image], made: Sequence[tuple[str, str]], view: View) -> set[str]:
    paths = [path_of(one.name) for one in images if is_visible(one, view)]
    hand_made = [path for owner, path in made if view.sees_all or owner == view.viewer]
    return {above for path in (*paths, *hand_made) for above in ancestors(path)} | set(hand_made)


class FolderContract:
    examples: ClassVar[int] = 25
    """How many trees are tried."""

    def make(self, folder: Path) -> Registry:
        raise NotImplementedError

    def forget(self, folder: Path) -> None:
        """Say that the registry of a folder is closed, and not used any longer."""

    @pytest.fixture
    def registry(self, tmp_path: Path) -> Iterator[Registry]:
        registry = self.make(tmp_path)
        yield registry
        registry.close()

    # ---- looking

    def test_every_looker_finds_what_a_plain_model_finds(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        @settings(MANY_EXAMPLES, max_examples=self.examples)
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            folder = tmp_path_factory.mktemp("registry")
            with closing(self.make(folder)) as registry:
                self._check_lookers(data, registry)
            self.forget(folder)

        check()

    def _check_lookers(self, data: st.DataObject, registry: Registry) -> None:
        images = []
        for name in data.draw(st.lists(NAMES, max_size=8)):
            owner = data.draw(st.sampled_from(["alice", "bob", None]))
            status = data.draw(st.sampled_from([ImageStatus.AVAILABLE, ImageStatus.AVAILABLE, ImageStatus.QUEUED]))
            images.append(registry.add(image(name, owner, status=status, is_public=data.draw(st.booleans()))))
        made = data.draw(
            st.lists(st.tuples(st.sampled_from(["alice", "bob"]), NAMES.map(path_of)), max_size=4, unique=True)
        )
        for owner, path in made:
            make_folder(registry, path, owner)
        limit = data.draw(st.integers(1, 4))
        for view in VIEWS:
            seen = [one for one in images if is_visible(one, view)]
            folders = folders_of_model(images, made, view)
            for path in {"", *folders}:
                here = [one for one in seen if split(path_of(one.name))[0] == path]
                assert images_in(registry, path, view, limit=limit) == sorted(here, key=lambda one: one.name)
                below = [other for other in folders if split(other)[0] == path]
                assert folders_in(registry, path, view, limit=limit) == sorted(below, key=lambda path: path + "/")
                assert registry.folders.folder(path, view).path == path
                found = registry.folders.at(name_of(path), view) if path else None
                assert found is None or found.folder == registry.folders.folder(path, view)
            for one in seen:
                same = [other for other in seen if other.name == one.name]
                first = min(same, key=lambda other: (not is_own(other, view), other.revision))
                assert registry.folders.first_named(one.name, view) == first
                assert registry.folders.at(one.name, view).image == first
                assert registry.folders.first_of_their_names([other.id for other in same], view) == {first.id}

    def test_pages_of_names_that_begin_alike_leave_none_out(self, registry: Registry) -> None:
        for name in ["a", "a\0", "a ", "a\0\0", "A", "a\1"] * 2:
            registry.add(image(f"f/{name}"))
            registry.add(image(f"f/{name}", "bob", is_public=True))
        for limit in (1, 2, 5):
            found = images_in(registry, "f", ALICE, limit=limit)
            assert [one.name for one in found] == sorted(one.name for one in found)
            assert sorted(int(one.id) for one in found) == list(range(1, 25))

    def test_what_is_not_there_holds_nothing_and_is_not_found(self, registry: Registry) -> None:
        assert names_in(registry, "a", ALICE) == []
        assert folders_in(registry, "a", ALICE) == []
        assert registry.folders.first_named("a", ALICE) is None
        assert registry.folders.at("a", ALICE) == Found(image=None, folder=None)
        assert registry.folders.first_of_their_names(["1"], ALICE) == set()
        with pytest.raises(PathNotFound):
            registry.folders.folder("a", ALICE)

    def test_deleted_images_leave_the_tree(self, registry: Registry) -> None:
        one = registry.add(image("a/b"))
        registry.delete(one.id, expected_revision=one.revision, deleted_at=LATER)
        assert names_in(registry, "a", ADMIN) == []
        assert folders_in(registry, "", ADMIN) == []

    def test_a_marker_of_something_else_is_refused(self, registry: Registry) -> None:
        with pytest.raises(InvalidQuery):
            registry.folders.images_in("", ALICE, after="nonsense")

    # ---- folders made by hand

    def test_a_hand_made_folder_is_its_owners_alone_until_there_is_something_to_see(self, registry: Registry) -> None:
        made = make_folder(registry, "a/b")
        assert registry.folders.folder("a/b", ALICE) == made
        assert registry.folders.folder("a", ALICE) == Folder(path="a")
        with pytest.raises(PathNotFound):
            registry.folders.folder("a/b", BOB)
        registry.add(image("a/b/c", is_public=True))
        assert registry.folders.folder("a/b", BOB) == Folder(path="a/b")

    def test_a_folder_is_made_once_by_each_owner(self, registry: Registry) -> None:
        make_folder(registry, "a")
        make_folder(registry, "a", "bob")
        with pytest.raises(PathTaken):
            make_folder(registry, "a")

    def test_only_folders_that_look_empty_are_removed(self, registry: Registry) -> None:
        make_folder(registry, "a")
        make_folder(registry, "a/b")
        registry.add(image("a/c", "bob"))
        with pytest.raises(FolderNotEmpty):
            registry.folders.remove_folder("a", ALICE, removed_at=LATER)
        registry.folders.remove_folder("a/b", ALICE, removed_at=LATER)
        registry.folders.remove_folder("a", ALICE, removed_at=LATER)
        assert folders_in(registry, "", ALICE) == []
        with pytest.raises(PathNotFound):
            registry.folders.remove_folder("a", ALICE, removed_at=LATER)
        assert folders_in(registry, "", BOB) == ["a"]

    def test_the_time_of_a_folder_is_kept(self, registry: Registry) -> None:
        made = make_folder(registry, "a")
        changed = registry.folders.set_folder_mtime(replace(made, mtime_ns=17))
        assert registry.folders.folder("a", ALICE) == changed
        assert (changed.mtime_ns, changed.created_at) == (17, NOW)
        registry.folders.set_folder_mtime(Folder(path="b", owner="alice", created_at=LATER, mtime_ns=18))
        assert registry.folders.folder("b", ALICE).mtime_ns == 18

    def test_the_feed_tells_of_folders_too(self, registry: Registry) -> None:
        made = make_folder(registry, "a")
        one = registry.add(image("x"))
        since = registry.changes(since=0)
        assert (since.folders, since.images, since.revision) == ((made,), (one,), 2)
        registry.folders.remove_folder("a", ALICE, removed_at=LATER)
        after = registry.changes(since=since.revision)
        assert [(folder.path, folder.removed_at) for folder in after.folders] == [("a", LATER)]
        assert after.images == ()

    def test_the_feed_comes_in_pieces_that_leave_nothing_out(self, registry: Registry) -> None:
        for number in range(4):
            make_folder(registry, f"f{number}")
            registry.add(image(f"i{number}"))
        since = 0
        told: list[int] = []
        while (piece := registry.changes(since=since, limit=1)).revision > since:
            told.extend(folder.revision for folder in piece.folders)
            told.extend(one.revision for one in piece.images)
            since = piece.revision
        assert told == list(range(1, 9))

    # ---- moving

    def test_a_folder_moves_with_all_that_is_visible_in_it(self, registry: Registry) -> None:
        for name in ("a/1", "a/b/2", "a/b//3", "ab", "a0/4"):
            registry.add(image(name))
        registry.add(image("a/theirs", "bob"))
        make_folder(registry, "a/empty")
        assert registry.folders.move_folder("a", "n/m", ALICE, moved_at=LATER) == 3
        assert folders_in(registry, "", ALICE) == ["a0", "n"]
        assert folders_in(registry, "n/m", ALICE) == ["n/m/b", "n/m/empty"]
        assert names_in(registry, "n/m", ALICE) == ["n/m/1"]
        assert names_in(registry, "n/m/b", ALICE) == ["n/m/b/2"]
        assert names_in(registry, "n/m/b/%_", ALICE) == ["n/m/b//3"]
        assert names_in(registry, "a", BOB) == ["a/theirs"]
        moved = registry.folders.first_named("n/m/1", ALICE)
        assert moved is not None
        assert moved.updated_at == LATER
        assert moved in registry.changes(since=moved.revision - 1).images

    def test_a_folder_does_not_move_where_it_must_not(self, registry: Registry) -> None:
        registry.add(image("a/1"))
        registry.add(image("a/2", "bob", is_public=True))
        registry.add(image("full/3"))
        registry.add(image("mine/4"))
        registry.add(image("mine/" + "x" * 200))
        before = registry.revision()
        with pytest.raises(Forbidden):
            registry.folders.move_folder("a", "b", ALICE, moved_at=LATER)
        with pytest.raises(FolderNotEmpty):
            registry.folders.move_folder("mine", "full", ALICE, moved_at=LATER)
        with pytest.raises(PathNotFound):
            registry.folders.move_folder("none", "b", ALICE, moved_at=LATER)
        with pytest.raises(PathTooLong):
            registry.folders.move_folder("mine", "/".join(["y" * 200] * 5), ALICE, moved_at=LATER)
        assert registry.revision() == before

    def test_a_folder_may_move_onto_an_empty_one(self, registry: Registry) -> None:
        make_folder(registry, "a")
        registry.add(image("a/1"))
        make_folder(registry, "b")
        registry.folders.move_folder("a", "b", ALICE, moved_at=LATER)
        assert folders_in(registry, "", ALICE) == ["b"]
        assert names_in(registry, "b", ALICE) == ["b/1"]

    # ---- adding where nothing is

    @pytest.mark.parametrize("view", [ALICE, BOB, ADMIN, NOBODY], ids=str)
    def test_an_image_is_only_added_where_its_name_is_vacant_for_who_looks(
        self, registry: Registry, view: View
    ) -> None:
        """What counts is what the looker sees, at the moment of the change."""
        there = [image("f/private"), replace(image("f/public"), is_public=True), image("f/bobs", owner="bob")]
        for one in there:
            registry.add(one)
        before = registry.revision()
        for one in there:
            if registry.folders.first_named(one.name, view) is not None:
                with pytest.raises(PathTaken):
                    registry.add(one, vacant_for=view)
                assert registry.revision() == before
            else:
                before = registry.add(one, vacant_for=view).revision
        assert registry.add(image("f/new"), vacant_for=view).name == "f/new"
        assert registry.add(image("f"), vacant_for=view).name == "f"

    def test_of_many_that_add_to_a_vacant_name_one_does(self, registry: Registry) -> None:
        def add(_: int) -> bool:
            try:
                registry.add(image("a"), vacant_for=ALICE)
            except PathTaken:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(add, range(8))) == 1
        assert len(images_in(registry, "", ALICE)) == 1

    # ---- superseding

    def test_an_image_takes_the_place_of_another_in_one_step(self, registry: Registry) -> None:
        old = registry.add(image("a"))
        registry.add(image("a"))
        new = registry.add(image("a"), superseding=superseded(old))
        assert registry.folders.first_named("a", ALICE) == new
        gone = registry.get(old.id)
        assert (gone.status, gone.deleted_at, gone.location) == (ImageStatus.DELETED, LATER, None)
        told = registry.changes(since=old.revision + 1).images
        assert {one.id for one in told} == {old.id, new.id}

    def test_a_renamed_image_takes_the_place_too(self, registry: Registry) -> None:
        old = registry.add(image("a"))
        registry.add(image("a"))
        other = registry.add(image("b"))
        renamed = registry.replace(
            replace(other, name="a"), expected_revision=other.revision, superseding=superseded(old)
        )
        assert registry.folders.first_named("a", ALICE) == renamed
        assert registry.folders.first_named("b", ALICE) is None

    def test_superseding_what_has_changed_changes_nothing(self, registry: Registry) -> None:
        old = registry.add(image("a"))
        registry.replace(replace(old, is_public=True), expected_revision=old.revision)
        before = registry.revision()
        with pytest.raises(StaleImage):
            registry.add(image("a"), superseding=superseded(old))
        with pytest.raises(ImageNotFound):
            registry.add(image("a"), superseding=superseded(replace(old, id="none")))
        assert registry.revision() == before

    def test_of_many_that_supersede_one_image_one_wins(self, registry: Registry) -> None:
        old = registry.add(image("a"))

        def supersede(_: int) -> bool:
            try:
                registry.add(image("a"), superseding=superseded(old))
            except (StaleImage, ImageNotFound):
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(supersede, range(16))) == 1
        assert len(images_in(registry, "", ALICE)) == 1
