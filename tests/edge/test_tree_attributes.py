# SPDX-License-Identifier: Apache-2.0
"""The tree over a real registry and a real store: what attributes and times mean.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.errors import (
    AttributeNotFound,
    AttributesUnsupported,
    Forbidden,
    GlancefsError,
    InvalidImage,
    PathTaken,
)
from glancefs.tree import ImageTree
from glancefs.tree.entries import mtime_text, read_mtime
from tests.support.trees import ALICE, BOB, KERNEL, Core, get, give, put, staged_of, walk

# ---- attributes


def test_all_fields_and_properties_are_attributes(tree: ImageTree) -> None:
    image = put(tree, "a", KERNEL, {"property.p": "ü".encode(), "min_ram": b"7"})
    entry = tree.lookup("a")
    said = {name.removeprefix("user.glance."): tree.get_xattr(entry, name) for name in tree.list_xattrs(entry)}
    assert set(said) == {
        *("id", "name", "type", "status", "size", "checksum", "store", "owner", "is_public", "created_at"),
        *("updated_at", "uri", "protected", "min_ram", "property.p"),
    }
    assert (said["type"], said["property.p"].decode(), said["min_ram"]) == (b"kernel", "ü", b"7")
    assert said["uri"] == f"http://images.example/images/{image.id}".encode()
    for missing in ("property.q", "disk_format"):
        with pytest.raises(AttributeNotFound):
            tree.get_xattr(entry, f"user.glance.{missing}")
    assert tree.list_xattrs(tree.lookup("")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("type", "ramdisk"), ("is_public", "true"), ("property.p", "1"), ("disk_format", "raw"), ("min_disk", "3")],
)
def test_settable_attributes_change_the_image(core: Core, tree: ImageTree, name: str, value: str) -> None:
    core.post("a")
    give(tree, "a", name, value)
    assert get(tree, "a", name).lower() == value
    assert core.images.get(ALICE, "1").revision == 2


def test_setting_the_name_renames(core: Core, tree: ImageTree) -> None:
    core.post("a")
    core.post("b")
    give(tree, "a", "name", "f//x")
    assert set(walk(tree)) == {"b", "f", "f/%_", "f/%_/x"}
    with pytest.raises(PathTaken):
        give(tree, "b", "name", "f//x")
    give(tree, "b", "name", "b")


@pytest.mark.parametrize("name", ["id", "status", "size", "checksum", "store", "owner", "created_at", "uri"])
def test_computed_attributes_take_their_own_value_only(core: Core, tree: ImageTree, name: str) -> None:
    core.post("a")
    give(tree, "a", name, get(tree, "a", name))
    with pytest.raises(Forbidden):
        give(tree, "a", name, "another")
    tree.remove_xattr(tree.lookup("a"), f"user.glance.{name}")
    assert core.images.get(ALICE, "1").revision == 1


def test_a_copy_tool_may_set_computed_attributes_for_a_while(tree: ImageTree) -> None:
    put(tree, "a", b"abc")
    give(tree, "a", "checksum", "another")
    assert get(tree, "a", "checksum").startswith("sha256:ba78")


def test_attributes_of_a_copy_restore_the_image(core: Core, tree: ImageTree) -> None:
    original = put(tree, "a", b"abc", {"id": b"my-id", "property.p": b"1", "type": b"ramdisk", "is_public": b"1"})
    assert original.id == "my-id"
    entry = tree.lookup("a")
    copied = {name.removeprefix("user.glance."): tree.get_xattr(entry, name) for name in tree.list_xattrs(entry)}
    again = put(tree, "b", b"abc", {name: value for name, value in copied.items() if name != "status"})
    assert (again.id, again.name) == ("1", "b")
    tree.remove("b")
    other = Core.at(core.folder / "other")
    restored = put(other.tree(), "a", b"abc", {name: value for name, value in copied.items() if name != "status"})
    other.close()
    assert restored == replace(
        original, location=restored.location, created_at=restored.created_at, updated_at=restored.updated_at
    )


def test_what_can_not_be_of_an_image_to_be_is_dropped(tree: ImageTree) -> None:
    said = {"id": b"no id", "store": b"swift", "checksum": b"x", "owner": b"bob", "name": b"other", "size": b"7"}
    image = put(tree, "a", b"abc", said)
    assert (image.id, image.store, image.owner, image.name, image.size) == ("1", "file", "alice", "a", 3)


def test_properties_go_away(core: Core, tree: ImageTree) -> None:
    core.post("a", properties={"p": "1"}, disk_format="raw")
    for name in ("property.p", "disk_format"):
        tree.remove_xattr(tree.lookup("a"), f"user.glance.{name}")
        with pytest.raises(AttributeNotFound):
            tree.remove_xattr(tree.lookup("a"), f"user.glance.{name}")
    staged = tree.create("b")
    give(tree, "b", "property.p", "1")
    tree.remove_xattr(tree.lookup("b"), "user.glance.property.p")
    assert dict(staged.said.properties) == {}


def test_a_property_taken_from_a_replacement_is_not_carried_over(tree: ImageTree) -> None:
    put(tree, "a", b"abc", {"property.p": b"1", "property.q": b"1"})
    staged = tree.stage(tree.lookup("a"), truncate=True)
    staged.write_at(0, b"x")
    tree.remove_xattr(staged_of(tree, "a"), "user.glance.property.p")
    image = tree.publish(staged)
    assert image is not None
    assert dict(image.properties) == {"q": "1"}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("security.capability", b"", AttributesUnsupported),
        ("user.other", b"", AttributesUnsupported),
        ("user.glance.nonsense", b"", AttributesUnsupported),
        ("user.glance.property.", b"", AttributesUnsupported),
        ("user.glance.type", b"nonsense", InvalidImage),
        ("user.glance.is_public", b"perhaps", InvalidImage),
        ("user.glance.min_ram", b"-1", InvalidImage),
        ("user.glance.property.p", b"\xff", InvalidImage),
    ],
)
def test_attributes_that_can_not_be_are_refused(
    core: Core, tree: ImageTree, name: str, value: bytes, error: type[GlancefsError]
) -> None:
    core.post("a")
    tree.create("b")
    for path in ("a", "b"):
        with pytest.raises(error):
            tree.set_xattr(tree.lookup(path), name, value)


def test_others_images_keep_their_attributes(core: Core, tree: ImageTree) -> None:
    core.post("a", context=BOB, is_public=True)
    for name in ("type", "property.p", "name"):
        with pytest.raises((Forbidden, InvalidImage)):
            give(tree, "a", name, "raw")
    with pytest.raises(Forbidden):
        tree.set_xattr(tree.lookup(""), "user.glance.type", b"raw")


# ---- times


def test_times_are_kept_and_seen_at_every_door(core: Core, tree: ImageTree) -> None:
    image = put(tree, "a", b"abc")
    assert tree.lookup("a").mtime_ns == int(image.created_at.timestamp()) * 10**9
    entry = tree.set_times(tree.lookup("a"), 1_500_000_000_123_456_789)
    assert entry == tree.lookup("a")
    assert entry.mtime_ns == 1_500_000_000_123_456_789
    assert core.images.get(ALICE, image.id).properties["mtime"] == "1500000000.123456789"
    assert "user.glance.property.mtime" not in tree.list_xattrs(entry)
    staged = tree.create("b")
    tree.set_times(tree.lookup("b"), 7 * 10**9)
    staged.write_at(0, b"x")
    tree.publish(staged)
    assert tree.lookup("b").mtime_ns == 7 * 10**9


def test_folders_have_times_too(core: Core, tree: ImageTree) -> None:
    core.post("f/a")
    for path in ("f", ""):
        tree.set_times(tree.lookup(path), 5)
    assert tree.lookup("f").mtime_ns == 5
    assert next(iter(tree.list("")))[0].mtime_ns == 5


@given(st.integers(-(2**60), 2**60))
def test_times_come_back_as_they_were_said(nanoseconds: int) -> None:
    assert read_mtime(mtime_text(nanoseconds)) == nanoseconds


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1e999", "9" * 40])
def test_what_is_no_time_is_none(text: str) -> None:
    assert read_mtime(text) is None
