# SPDX-License-Identifier: Apache-2.0
"""Names and paths are each other's inverse, for every text and for every path.

Threading: none.
"""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glancefs.errors import InvalidPath, PathTooLong
from glancefs.model import MAX_NAME
from glancefs.paths import component_from_bytes, cut, is_dot, join, name_of, path_of, split

ESCAPES = st.sampled_from(["%", "%25", "25", "2E", "%2E", "_", "%_", "%+", "+", "0A", "%0A", "7F", "00", ".glance"])
PIECES = st.one_of(
    ESCAPES,
    st.sampled_from(["/", "//", ".", "..", "\0", "\n", "\x7f", "~", "é", "\U0001f4be", "a" * 200, "é" * 120]),
    st.integers(250, 256).map(lambda size: "x" * size),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
NAMES = st.lists(PIECES, max_size=12).map("".join).filter(lambda name: len(name) <= MAX_NAME)
COMPONENTS = (
    st.lists(PIECES, min_size=1, max_size=8)
    .map(lambda pieces: cut("".join(pieces).translate(dict.fromkeys([*range(32), 127, ord("/")])), 255))
    .filter(lambda component: component not in {"", ".", ".."})
)
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path) <= MAX_NAME // 2)


@given(NAMES)
@example("")
@example("/")
@example("a//b/")
@example("./../.glance")
@example(".glance/by-id")
@example("%2Eglance")
@example("é" * MAX_NAME)
@example("\0" * MAX_NAME)
@example("x" * 255 + "/%+y")
@example("x" * 256 + "/%25+y")
@example("%" + "25" * 300 + "+y")
@example("x" * 255 + "/%" + "25" * 300 + "+y")
def test_a_name_comes_back_from_its_path(name: str) -> None:
    assert name_of(path_of(name)) == name


@given(PATHS.filter(lambda path: path.split("/")[0] != ".glance"))
@example("x" * 255 + "/%+")
@example("x" * 254 + "/%+y")
@example("x" * 253 + "/%+é")
@example("%2Eglance/.glance")
def test_a_path_comes_back_from_its_name(path: str) -> None:
    assert path_of(name_of(path)) == path


@given(NAMES)
def test_every_component_of_a_path_is_a_file_name(name: str) -> None:
    for component in path_of(name).split("/"):
        assert component not in {"", ".", ".."}
        assert 0 < len(component.encode()) <= 255
        assert not any(ord(character) < 32 or ord(character) == 127 for character in component)
    assert path_of(name).split("/")[0] != ".glance"


@pytest.mark.parametrize("name", ["", "/", "a//b", ".", "x" * 300, "a\nb", "a/\0"])
def test_the_path_of_an_odd_name_can_be_made_on_a_disk(name: str, tmp_path: Path) -> None:
    path = tmp_path / path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = [os.path.relpath(Path(folder) / file, tmp_path) for folder, _, files in os.walk(tmp_path) for file in files]
    assert [name_of(path) for path in found] == [name]


@pytest.mark.parametrize(
    "path", ["100%", "foo%20bar.iso", "naïve.img", "%", "%zz", "%2F", "%25", "a/b.qcow2", "%0a", "~1", "a %2E", "%+x"]
)
def test_plain_file_names_read_the_same_as_names(path: str) -> None:
    assert name_of(path) == path
    assert path_of(path) == path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("", "%_"),
        ("/a", "%_/a"),
        ("a/", "a/%_"),
        ("a/../b", "a/%2E%2E/b"),
        ("a\nb", "a%0Ab"),
        ("a%0Ab", "a%250Ab"),
        ("a%250Ab", "a%25250Ab"),
        (".glance", "%2Eglance"),
        ("a/.glance", "a/.glance"),
        ("x" * 300, f"{'x' * 255}/%+{'x' * 45}"),
    ],
)
def test_what_no_path_can_hold_is_escaped(name: str, path: str) -> None:
    assert path_of(name) == path
    assert name_of(path) == name


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", ".", "a/..", "a\nb", "\0", ".glance", ".glance/stats"])
def test_what_is_no_path_of_an_image_is_refused(path: str) -> None:
    with pytest.raises(InvalidPath):
        name_of(path)


def test_lengths_are_those_of_file_systems() -> None:
    assert name_of("é" * 127) == "é" * 127
    with pytest.raises(PathTooLong):
        name_of("é" * 128)
    with pytest.raises(PathTooLong):
        name_of("/".join(["x" * 250] * 5))


def test_file_names_that_are_no_text_are_refused() -> None:
    assert component_from_bytes("naïve".encode()) == "naïve"
    with pytest.raises(InvalidPath):
        component_from_bytes(b"na\xefve")
    with pytest.raises(InvalidPath):
        path_of("na\udcefve")
    with pytest.raises(PathTooLong):
        component_from_bytes(b"x" * 256)


def test_paths_are_taken_apart_and_put_together() -> None:
    assert split("a/b/c") == ("a/b", "c")
    assert split("a") == ("", "a")
    assert join("", "a") == "a"
    assert join("a/b", "c") == "a/b/c"
    assert is_dot("a/.b")
    assert not is_dot(".a/b")
