# SPDX-License-Identifier: Apache-2.0
"""What may be said of an image, and what follows which.

Threading: none.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.errors import InvalidImage
from glancefs.model import (
    MAX_NUMBER,
    TRANSITIONS,
    ImageChanges,
    ImageStatus,
    ImageType,
    Location,
    NewImage,
    image_type,
    normal_properties,
    property_key,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


def new_image(**said: Any) -> NewImage:
    return NewImage(**({"name": "debian", "type": ImageType.MACHINE} | said))


@pytest.mark.parametrize("good", ["1", "a", "A.b_c-d", "0" * 255, "550e8400-e29b-41d4-a716-446655440000"])
def test_an_id_of_letters_digits_dots_and_dashes_is_fine(good: str) -> None:
    assert new_image(id=good).id == good


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "é", "a\x00", "0" * 256, "a%2fb", "detail"]
)
def test_any_other_id_is_refused_by_its_field(bad: str) -> None:
    with pytest.raises(InvalidImage) as refusal:
        new_image(id=bad)
    assert refusal.value.field == "id"


@given(texts)
def test_a_name_may_be_any_text(name: str) -> None:
    assert new_image(name=name).name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "\udcff"),
        ("name", "n" * 1025),
        ("disk_format", "floppy"),
        ("container_format", "box"),
        ("min_disk", -1),
        ("min_ram", MAX_NUMBER + 1),
        ("size", -1),
        ("checksum", "sha256:ABC"),
        ("checksum", "d41d8cd98f00b204e9800998ecf8427e"),
        ("owner", "o" * 256),
    ],
)
def test_a_field_that_cannot_be_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(InvalidImage) as refusal:
        new_image(**{field: value})
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("said", "kept"), [("distro", "distro"), ("OS-Version", "os_version"), ("a.b:c", "a_b_c"), ("X y", "x_y")]
)
def test_a_property_key_is_lower_cased_and_its_punctuation_underscored(said: str, kept: str) -> None:
    assert property_key(said) == kept


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
def test_a_property_key_in_normal_form_stays_as_it_is(text: str) -> None:
    assert property_key(property_key(text)) == property_key(text)


@pytest.mark.parametrize("bad", ["", "é", "a\n", "k" * 256])
def test_a_property_key_that_no_header_can_carry_is_refused(bad: str) -> None:
    with pytest.raises(InvalidImage):
        property_key(bad)


def test_two_properties_that_meet_in_one_key_are_refused() -> None:
    with pytest.raises(InvalidImage, match="meet in the key 'os_name'"):
        normal_properties({"os-name": "a", "os.name": "b"})


def test_a_type_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidImage, match="kernel, machine, raw, ramdisk"):
        image_type("floppy")


def test_changes_say_only_what_was_said() -> None:
    changes = ImageChanges(name="n", min_disk=None, properties={"A": "1"})
    assert changes.said() == {"name": "n", "min_disk": None}


def test_properties_are_set_removed_or_purged() -> None:
    before = {"a": "1", "b": "2"}
    assert ImageChanges(properties={"B": "3"}).properties_after(before) == {"a": "1", "b": "3"}
    assert ImageChanges(removed_properties=frozenset({"a"})).properties_after(before) == {"b": "2"}
    assert ImageChanges(properties={"c": "4"}, purge_properties=True).properties_after(before) == {"c": "4"}


def test_an_available_image_can_only_be_deleted_and_a_deleted_one_nothing() -> None:
    assert TRANSITIONS[ImageStatus.AVAILABLE] == {ImageStatus.DELETED}
    assert TRANSITIONS[ImageStatus.DELETED] == set()
    assert set(TRANSITIONS) == set(ImageStatus)


def test_a_location_is_read_back_from_its_text() -> None:
    location = Location(store="file", key="ab:cd")
    assert Location.parse(str(location)) == location
