# SPDX-License-Identifier: Apache-2.0
"""What every registry promises about dead properties, as tests: one suite, run over each backend.

Answers for the sentences of `glancefs.registries.dead_properties`, and for what the changes of images and folders
promise about them. A backend's test class says how to open a registry.

Threading: none of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glancefs.errors import ImageNotFound, InvalidRequest, Locked, StoreFull
from glancefs.registries.base import Registry
from glancefs.registries.dead_properties import (
    MAX_PROPERTY_NAME,
    MAX_PROPERTY_VALUE,
    MOST_PROPERTIES,
    OfFolder,
    OfImage,
    Subject,
)
from glancefs.registries.folders import Folder, View
from tests.contract.lock_contract import acquire, by, delete, put, superseded
from tests.contract.registry_model import NOON, an_available_image

ANN, ADMIN = View(viewer="ann"), View(viewer="root", sees_all=True)
WIN32 = "{urn:schemas-microsoft-com:}Win32FileAttributes"
VALUE = "<a xmlns='urn:x'>é &amp; \U0001f427\n</a>"


def give(registry: Registry, subject: Subject, *removed: str, **values: str) -> None:
    registry.dead_properties.change(
        subject, values={f"{{urn:x}}{name}": value for name, value in values.items()}, removed=removed, presented=by()
    )


def given(registry: Registry, subject: Subject) -> dict[str, str]:
    values = registry.dead_properties.get(subject)
    return {name.removeprefix("{urn:x}"): value for name, value in values.items()}


class DeadPropertyContract:
    """Subclass this as ``Test...`` and say how a registry is opened."""

    @staticmethod
    def open(folder: Path) -> Registry:
        """Open the registry of a folder, which is made if there is none."""
        raise NotImplementedError

    @pytest.fixture
    def registry(self, tmp_path: Path) -> Iterator[Registry]:
        """Open an empty registry."""
        registry = self.open(tmp_path / "registry")
        yield registry
        registry.close()

    def test_values_are_kept_as_they_came_and_told_in_order(self, registry: Registry) -> None:
        subjects: list[Subject] = [OfImage(put(registry, "a").id), OfFolder("ann", "a/b"), OfFolder("ann", "")]
        for subject in subjects:
            registry.dead_properties.change(subject, values={WIN32: "0", "{}b": VALUE, "{}a": ""}, presented=by())
            assert list(registry.dead_properties.get(subject).items()) == [(WIN32, "0"), ("{}a", ""), ("{}b", VALUE)]
        assert registry.dead_properties.get(OfFolder("bob", "a/b")) == {}
        assert registry.dead_properties.get(OfImage("none")) == {}

    def test_some_are_set_and_others_removed_in_one_step(self, registry: Registry) -> None:
        subject = OfImage(put(registry, "a").id)
        give(registry, subject, one="1", two="2")
        give(registry, subject, "{urn:x}one", "{urn:x}never", two="zwei", three="3")
        assert given(registry, subject) == {"two": "zwei", "three": "3"}
        give(registry, subject, "{urn:x}two", "{urn:x}three")
        assert given(registry, subject) == {}

    def test_many_are_asked_about_at_once(self, registry: Registry) -> None:
        subjects: list[Subject] = [OfImage(put(registry, f"a/{number}").id) for number in range(5)]
        subjects += [OfFolder(owner, "a") for owner in ("ann", "bob")]
        for number, subject in enumerate(subjects[::2]):
            give(registry, subject, n=str(number))
        unknown = [OfImage(str(number)) for number in range(1000, 2200)]
        found = registry.dead_properties.get_many([*subjects, *unknown])
        assert found == {subject: {"{urn:x}n": str(number)} for number, subject in enumerate(subjects[::2])}

    def test_what_is_too_long_or_too_many_is_refused_and_changes_nothing(self, registry: Registry) -> None:
        subject = OfImage(put(registry, "a").id)
        give(registry, subject, kept="1")
        longest = "x" * MAX_PROPERTY_VALUE
        for values in ({"{urn:x}y": longest + "x"}, {"n" * (MAX_PROPERTY_NAME + 1): ""}):
            with pytest.raises(InvalidRequest):
                registry.dead_properties.change(subject, values=values, presented=by())
        full = {f"{{urn:x}}{number}": "" for number in range(MOST_PROPERTIES)}
        with pytest.raises(StoreFull):
            registry.dead_properties.change(subject, values=full, presented=by())
        assert given(registry, subject) == {"kept": "1"}
        registry.dead_properties.change(subject, values=full, removed=["{urn:x}kept"], presented=by())
        registry.dead_properties.change(subject, values={"{urn:x}0": longest}, presented=by())
        assert given(registry, subject)["0"] == longest
        assert len(given(registry, subject)) == MOST_PROPERTIES

    def test_an_image_that_is_not_there_keeps_none(self, registry: Registry) -> None:
        image = put(registry, "a")
        delete(registry, image, by())
        for image_id in (image.id, "never"):
            with pytest.raises(ImageNotFound):
                give(registry, OfImage(image_id), n="1")

    def test_what_is_locked_keeps_its_properties(self, registry: Registry) -> None:
        subject = OfImage(put(registry, "a/b").id)
        lock = acquire(registry, "a", is_deep=True)
        for one in (subject, OfFolder("ann", "a"), OfFolder("ann", "a/c")):
            with pytest.raises(Locked):
                give(registry, one, n="1")
            registry.dead_properties.change(one, values={"{urn:x}n": "2"}, presented=by(lock))
            assert given(registry, one) == {"n": "2"}

    def test_they_stay_with_a_renamed_image_and_go_with_a_deleted_one(self, registry: Registry) -> None:
        image = put(registry, "a")
        give(registry, OfImage(image.id), n="1")
        image = registry.replace(replace(image, name="b"), expected_revision=image.revision, presented=by())
        assert given(registry, OfImage(image.id)) == {"n": "1"}
        delete(registry, image, by())
        assert given(registry, OfImage(image.id)) == {}

    def test_an_image_that_takes_anothers_place_gets_its_properties(self, registry: Registry) -> None:
        old = put(registry, "a")
        give(registry, OfImage(old.id), n="1")
        new = registry.add(an_available_image(name="a"), superseding=superseded(old))
        assert given(registry, OfImage(new.id)) == {"n": "1"}
        assert given(registry, OfImage(old.id)) == {}

    def test_an_image_that_moves_onto_another_keeps_its_own(self, registry: Registry) -> None:
        moved, old = put(registry, "a"), put(registry, "b")
        give(registry, OfImage(old.id), n="old")
        give(registry, OfImage(moved.id), m="moved")
        onto = replace(moved, name="b")
        registry.replace(onto, expected_revision=moved.revision, superseding=superseded(old), presented=by())
        assert (given(registry, OfImage(moved.id)), given(registry, OfImage(old.id))) == ({"m": "moved"}, {})

    @pytest.mark.parametrize("takes_a_place", [True, False])
    def test_a_copy_has_those_of_what_it_is_a_copy_of(self, registry: Registry, *, takes_a_place: bool) -> None:
        source, old = put(registry, "a"), put(registry, "b")
        give(registry, OfImage(source.id), n="1", m="2")
        give(registry, OfImage(old.id), old="3")
        new = an_available_image(name="b")
        copied = registry.add(new, superseding=superseded(old) if takes_a_place else None, copied_from=source.id)
        assert given(registry, OfImage(copied.id)) == given(registry, OfImage(source.id)) == {"n": "1", "m": "2"}
        assert given(registry, OfImage(old.id)) == ({} if takes_a_place else {"old": "3"})

    def test_those_of_folders_move_and_go_with_them(self, registry: Registry) -> None:
        put(registry, "a/b/c")
        for path in ("a", "a/b", "ab"):
            give(registry, OfFolder("ann", path), n=path)
        give(registry, OfFolder("bob", "a"), n="bob")
        give(registry, OfFolder("ann", "z/b"), n="of what was there before")
        registry.folders.move_folder("a", "z", ANN, moved_at=NOON)
        assert given(registry, OfFolder("ann", "z")) == {"n": "a"}
        assert given(registry, OfFolder("ann", "z/b")) == {"n": "a/b"}
        assert given(registry, OfFolder("ann", "a")) == given(registry, OfFolder("ann", "a/b")) == {}
        assert given(registry, OfFolder("ann", "ab")) == {"n": "ab"}
        assert given(registry, OfFolder("bob", "a")) == {"n": "bob"}

    @pytest.mark.parametrize(("view", "left"), [(ANN, {"n": "bob"}), (ADMIN, {})])
    def test_those_of_a_removed_folder_go(self, registry: Registry, view: View, left: dict[str, str]) -> None:
        registry.folders.add_folder(Folder(path="a", owner="ann", created_at=NOON))
        for owner in ("ann", "bob"):
            give(registry, OfFolder(owner, "a"), n=owner)
        registry.folders.remove_folder("a", view, removed_at=NOON)
        assert given(registry, OfFolder("ann", "a")) == {}
        assert given(registry, OfFolder("bob", "a")) == left
