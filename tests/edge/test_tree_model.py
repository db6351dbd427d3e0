# SPDX-License-Identifier: Apache-2.0
"""The tree held against a plain model of it: two users, any order of steps, any namesakes.

Threading: none; Hypothesis runs one step after the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from glancefs.errors import GlancefsError
from glancefs.model import ImageChanges
from glancefs.paths import name_of, path_of, split
from glancefs.tree import EntryKind, ImageTree
from tests.support.trees import ALICE, BOB, Core, put, read, walk

NAMES = ["a", "f", "f/a", "f/g/a", "a~1", "f//x", "x\ny", ""]
PATHS = ["a", "f", "f/a", "f/g", "f/g/a", "g", "g/a", "a~1", "a~1~1", "x%0Ay", "%_"]
Outcome = TypeVar("Outcome")
WHO = {"alice": ALICE, "bob": BOB}


@dataclass(slots=True, kw_only=True)
class ModelImage:
    id: str
    name: str
    owner: str
    data: bytes
    place: int
    is_public: bool = False
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Model:
    images: list[ModelImage] = field(default_factory=list)
    made: set[tuple[str, str]] = field(default_factory=set)
    """Owner and path."""

    def visible(self, user: str) -> list[ModelImage]:
        return [image for image in self.images if image.is_public or image.owner == user]

    def folders(self, user: str) -> set[str]:
        hand_made = {path for owner, path in self.made if owner == user}
        paths = hand_made | {path_of(image.name) for image in self.visible(user)}
        return hand_made | {above for path in paths for above in ancestors(path)}

    def files(self, user: str) -> dict[str, ModelImage]:
        images = sorted(self.visible(user), key=lambda image: (image.owner != user, image.place))
        folders = self.folders(user)
        firsts: dict[str, ModelImage] = {}
        for image in images:
            firsts.setdefault(path_of(image.name), image)
        files = {path: image for path, image in firsts.items() if path not in folders}
        for image in images:
            if image not in files.values():
                path = f"{path_of(image.name)}~{image.id}"
                while path in firsts or path in folders:
                    path += f"~{image.id}"
                files[path] = image
        return files

    def keep(self, user: str, path: str) -> None:
        if path and path not in self.folders(user):
            self.made.add((user, path))


def ancestors(path: str) -> Iterator[str]:
    while path := split(path)[0]:
        yield path


class TreeMachine(RuleBasedStateMachine):
    """Every step is made in the tree and in the model; what the model refuses, the tree must refuse."""

    def __init__(self) -> None:
        super().__init__()
        # Many examples make many small registries, and a disk syncs each of their steps.
        fast = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(prefix="glancefs-tree-", dir=fast if fast.is_dir() else None)
        self.core = Core.at(Path(self.folder.name))
        self.trees = {user: self.core.tree(context) for user, context in WHO.items()}
        self.model = Model()
        self.places = count()

    def teardown(self) -> None:
        self.core.close()
        self.folder.cleanup()

    # ---- steps

    def pick(self, data: st.DataObject, user: str) -> str:
        """Choose a path, twice as likely one at which something is."""
        there = sorted([*self.model.files(user), *self.model.folders(user)])
        path: str = data.draw(st.one_of(*[st.sampled_from(paths) for paths in (there, there, PATHS) if paths]))
        return path

    @initialize(names=st.lists(st.sampled_from(NAMES), max_size=5), is_public=st.booleans())
    def begin(self, *, names: list[str], is_public: bool) -> None:
        for number, name in enumerate(names):
            self.post(name=name, user=["alice", "bob"][number % 2], is_public=is_public)

    @rule(name=st.sampled_from(NAMES), user=st.sampled_from(["alice", "bob"]), is_public=st.booleans())
    def post(self, *, name: str, user: str, is_public: bool) -> None:
        data = b"posted %d" % next(self.places)
        image = self.core.post(name, data, WHO[user], is_public=is_public)
        self.add(image.id, name, user, data, is_public=is_public)

    @rule(data=st.data(), user=st.sampled_from(["alice", "bob"]))
    def write(self, data: st.DataObject, user: str) -> None:
        path = self.pick(data, user)
        written = b"written %d" % next(self.places)
        old = self.model.files(user).get(path)
        is_allowed = old.owner == user if old else self.can_hold(user, path)
        image_id = self.check(lambda: put(self.trees[user], path, written).id, is_allowed=is_allowed)
        if image_id is None:
            return
        if old is None:
            self.add(image_id, name_of(path), user, written)
            return
        self.model.images.remove(old)
        new = self.add(image_id, old.name, user, written, is_public=old.is_public)
        new.place, new.properties = old.place, old.properties

    @rule(data=st.data(), user=st.sampled_from(["alice", "bob"]))
    def remove(self, data: st.DataObject, user: str) -> None:
        path = self.pick(data, user)
        old = self.model.files(user).get(path)
        is_allowed = old is not None and old.owner == user
        if self.check(lambda: self.trees[user].remove(path), is_allowed=is_allowed) and old is not None:
            self.model.images.remove(old)
            self.model.keep(user, split(path)[0])

    @rule(path=st.sampled_from(PATHS), user=st.sampled_from(["alice", "bob"]))
    def make_folder(self, path: str, user: str) -> None:
        if self.check(lambda: self.trees[user].make_folder(path), is_allowed=self.can_hold(user, path)):
            self.model.made.add((user, path))

    @rule(data=st.data(), user=st.sampled_from(["alice", "bob"]))
    def remove_folder(self, data: st.DataObject, user: str) -> None:
        path = self.pick(data, user)
        is_allowed = path in self.model.folders(user) and self.is_empty(user, path)
        if self.check(lambda: self.remove_in_tree(user, path), is_allowed=is_allowed):
            self.model.made.discard((user, path))
            self.model.keep(user, split(path)[0])

    def remove_in_tree(self, user: str, path: str) -> bool:
        self.trees[user].remove_folder(path)
        return True

    @rule(data=st.data(), user=st.sampled_from(["alice", "bob"]), over=st.booleans())
    def rename(self, *, data: st.DataObject, user: str, over: bool) -> None:
        old, new = self.pick(data, user), self.pick(data, user)
        is_folder = old in self.model.folders(user)
        can = self.can_move_folder if is_folder else self.can_move_file
        is_allowed = old == new and (is_folder or old in self.model.files(user))
        is_allowed = is_allowed or (can(user, old, new) and (over or self.is_free(user, new)))
        if not self.check(lambda: self.trees[user].rename(old, new, replace=over), is_allowed=is_allowed) or old == new:
            return
        if is_folder:
            self.move_folder(user, old, new)
        else:
            moved, target = self.model.files(user)[old], self.model.files(user).get(new)
            moved.name = name_of(new) if target is None else target.name
            if target is not None:
                moved.place = target.place
                self.model.images.remove(target)
        self.model.keep(user, split(old)[0])

    @precondition(lambda self: self.model.images)
    @rule(data=st.data(), user=st.sampled_from(["alice", "bob"]), value=st.sampled_from(["1", "2"]))
    def set_property(self, data: st.DataObject, user: str, value: str) -> None:
        image = data.draw(st.sampled_from(self.model.images))
        path = next((path for path, other in self.model.files(user).items() if other is image), None)
        if path is None:
            return
        tree = self.trees[user]
        is_set = self.check(
            lambda: tree.set_xattr(tree.lookup(path), "user.glance.property.p", value.encode()),
            is_allowed=image.owner == user,
        )
        if is_set:
            image.properties = {"p": value}

    @precondition(lambda self: self.model.images)
    @rule(data=st.data(), is_public=st.booleans())
    def set_visibility(self, *, data: st.DataObject, is_public: bool) -> None:
        image = data.draw(st.sampled_from(self.model.images))
        self.core.images.update(WHO[image.owner], image.id, ImageChanges(is_public=is_public))
        image.is_public = is_public

    # ---- what must hold

    @invariant()
    def every_user_sees_what_the_model_says(self) -> None:
        for user, tree in self.trees.items():
            files, folders = self.model.files(user), self.model.folders(user)
            seen = walk(tree, page_size=100)
            assert {path for path, entry in seen.items() if entry.kind is EntryKind.FOLDER} == folders
            assert {path: entry.image.id for path, entry in seen.items() if entry.image} == {
                path: image.id for path, image in files.items()
            }

    @rule()
    def look_closer(self) -> None:
        for user, tree in self.trees.items():
            seen = walk(tree, page_size=2)
            assert {path: tree.lookup(path) for path in seen} == seen
            self.check_images(tree, user)

    def check_images(self, tree: ImageTree, user: str) -> None:
        for path, image in self.model.files(user).items():
            entry = tree.lookup(path)
            assert entry.image is not None
            assert (entry.image.name, dict(entry.image.properties)) == (image.name, image.properties)
            assert entry.is_changeable == (image.owner == user)
            assert read(tree, path) == image.data
            link = tree.lookup(f".glance/by-id/{image.id}")
            assert tree.read_link(link) == f"../../{path}"

    # ---- the model

    def add(self, image_id: str, name: str, user: str, data: bytes, *, is_public: bool = False) -> ModelImage:
        image = ModelImage(id=image_id, name=name, owner=user, data=data, place=next(self.places), is_public=is_public)
        self.model.images.append(image)
        return image

    def check(self, act: Callable[[], Outcome], *, is_allowed: bool) -> Outcome | None:
        """Take a step that the tree must refuse if the model does."""
        if is_allowed:
            return act()
        with pytest.raises(GlancefsError):
            act()
        return None

    def is_free(self, user: str, path: str) -> bool:
        return path not in self.model.files(user) and path not in self.model.folders(user)

    def can_hold(self, user: str, path: str) -> bool:
        folder = split(path)[0]
        return self.is_free(user, path) and (not folder or folder in self.model.folders(user))

    def is_empty(self, user: str, path: str) -> bool:
        return not any(other.startswith(f"{path}/") for other in (*self.model.files(user), *self.model.folders(user)))

    def can_move_file(self, user: str, old: str, new: str) -> bool:
        moved, target = self.model.files(user).get(old), self.model.files(user).get(new)
        if moved is None or moved.owner != user or new in self.model.folders(user):
            return False
        return target.owner == user if target else self.can_hold(user, new)

    def can_move_folder(self, user: str, old: str, new: str) -> bool:
        folder = split(new)[0]
        if new in self.model.files(user) or f"{new}/".startswith(f"{old}/") or not self.is_empty(user, new):
            return False
        if folder and folder not in self.model.folders(user):
            return False
        return all(image.owner == user for image in self.below(user, old))

    def below(self, user: str, path: str) -> list[ModelImage]:
        return [image for image in self.model.visible(user) if path_of(image.name).startswith(f"{path}/")]

    def move_folder(self, user: str, old: str, new: str) -> None:
        for image in self.below(user, old):
            image.name = name_of(new + path_of(image.name)[len(old) :])
        for owner, path in set(self.model.made):
            if owner == user and f"{path}/".startswith(f"{old}/"):
                self.model.made.remove((owner, path))
                self.model.made.add((owner, new + path[len(old) :]))


QUICK = settings(max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


def test_any_order_of_steps_is_as_the_model_says() -> None:
    run_state_machine_as_test(TreeMachine, settings=QUICK)


@pytest.mark.soak
def test_very_many_orders_of_steps_are_as_the_model_says() -> None:
    run_state_machine_as_test(TreeMachine, settings=settings(QUICK, max_examples=500))
