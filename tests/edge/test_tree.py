# SPDX-License-Identifier: Apache-2.0
"""The tree over a real registry and a real store: what is where, what moves how, and the mount's own folder.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

import json
import posixpath
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Connection  # noqa: TC002 - one import block reads better

from glancefs.errors import (
    FolderNotEmpty,
    Forbidden,
    GlancefsError,
    InvalidPath,
    InvalidRequest,
    IsAFolder,
    NotAFolder,
    PathNotFound,
    PathTaken,
    PathTooLong,
    ProtectedImage,
)
from glancefs.model import ImageChanges, ImageType
from glancefs.paths import name_of
from glancefs.tree import EntryKind, ImageTree
from tests.support.trees import ADMIN, ALICE, BOB, Core, names, put, put_staged, read, walk

# ---- what is where


def test_the_root_is_there_and_hides_what_is_the_mounts_own(tree: ImageTree) -> None:
    assert tree.lookup("").kind is EntryKind.FOLDER
    assert names(tree) == []
    assert tree.lookup(".glance").kind is EntryKind.FOLDER
    with pytest.raises(PathNotFound):
        tree.lookup("a")


def test_names_become_paths(core: Core, tree: ImageTree) -> None:
    for name in ("a/b/c", "", "x\ny", ".glance/by-id", "é" * 300, "100%"):
        core.post(name)
    seen = walk(tree)
    assert {name_of(path) for path, entry in seen.items() if entry.image} == {
        *("a/b/c", "", "x\ny", ".glance/by-id", "é" * 300, "100%")
    }
    assert all(tree.lookup(path) == entry for path, entry in seen.items())


@pytest.mark.parametrize(("path", "error"), [("a\nb", InvalidPath), ("a//b", InvalidPath), ("é" * 128, PathTooLong)])
def test_paths_that_no_image_has_are_refused(tree: ImageTree, path: str, error: type[GlancefsError]) -> None:
    for act in (tree.lookup, tree.create, tree.make_folder, tree.remove):
        with pytest.raises(error):
            act(path)


def test_a_users_own_image_comes_first_and_then_the_oldest(core: Core, tree: ImageTree) -> None:
    theirs = core.post("a", b"theirs", BOB, is_public=True)
    mine = core.post("a", b"mine")
    later = core.post("a", b"later")
    assert set(walk(tree)) == {"a", f"a~{theirs.id}", f"a~{later.id}"}
    assert (read(tree, "a"), read(tree, f"a~{later.id}"), read(tree, f"a~{theirs.id}")) == (
        b"mine",
        b"later",
        b"theirs",
    )
    with pytest.raises(PathNotFound):
        tree.lookup(f"a~{mine.id}")


def test_a_name_that_reads_like_a_namesakes_path_keeps_it(core: Core, tree: ImageTree) -> None:
    core.post("a", b"first")
    second = core.post("a", b"second")
    core.post(f"a~{second.id}", b"real")
    assert read(tree, f"a~{second.id}") == b"real"
    assert read(tree, f"a~{second.id}~{second.id}") == b"second"
    assert len(walk(tree)) == 3


def test_namesakes_of_the_longest_names_have_paths_too(core: Core, tree: ImageTree) -> None:
    core.post("é" * 127, b"first")
    core.post("é" * 127, b"second", id="x" * 200)
    assert {read(tree, path) for path in walk(tree)} == {b"first", b"second"}


LONG_NAMES = ("a", "f/a", "", "..", "100%", "é" * 127, "a" * 222, "a" * 600)


@pytest.mark.parametrize("name", LONG_NAMES, ids=range(len(LONG_NAMES)))
def test_namesakes_with_the_longest_ids_have_paths_too(core: Core, tree: ImageTree, name: str) -> None:
    core.post(name, b"first")
    data = {core.post(name, f"{end}".encode(), id="x" * 254 + end).id: end.encode() for end in "abc"}
    core.post(name + "!", b"another", id="x" * 254 + "d")
    walked = {path: entry for path, entry in walk(tree).items() if entry.kind is EntryKind.IMAGE}
    assert all(len(part.encode()) <= 255 for path in walked for part in path.split("/"))
    assert sorted(read(tree, path) for path in walked) == [b"a", b"another", b"b", b"c", b"first"]
    for path in walk(tree, ".glance/by-type/raw"):
        target = posixpath.normpath(posixpath.join(".glance/by-type/raw", tree.read_link(tree.lookup(path))))
        assert tree.lookup(target).image is not None
    for image_id, content in data.items():
        target = posixpath.normpath(f".glance/by-id/{tree.read_link(tree.lookup(f'.glance/by-id/{image_id}'))}")
        assert read(tree, target) == content
        assert json.loads(tree.read_document(tree.lookup(f".glance/json/{image_id}")))["id"] == image_id
    tree.remove(target)
    with pytest.raises(PathNotFound):
        tree.lookup(target)


@pytest.mark.parametrize("length", [1, 120, 254, 255])
def test_nobody_can_take_all_places_of_a_namesake(core: Core, tree: ImageTree, length: int) -> None:
    core.post("a" * 250, b"first")
    second = core.post("a" * 250, b"second", id="x" * length)
    for _ in range(5):
        (place,) = [path for path, entry in walk(tree).items() if entry.image and entry.image.id == second.id]
        core.post(name_of(place), b"in the way", BOB, is_public=True)
    assert sorted(read(tree, path) for path in walk(tree)) == [b"first", *[b"in the way"] * 5, b"second"]
    for absent in (
        "~",
        "~x",
        "a~",
        "~~" + "0" * 32,
        "a~~" + "0" * 32,
        ".glance~~" + "0" * 32,
        "a" * 221 + "~~" + "0" * 32,
    ):
        with pytest.raises(PathNotFound):
            tree.lookup(absent)


def test_a_folder_keeps_the_plain_name(core: Core, tree: ImageTree) -> None:
    image = core.post("a", b"image")
    core.post("a/b")
    assert set(walk(tree)) == {"a", "a/b", f"a~{image.id}"}
    assert tree.lookup("a").kind is EntryKind.FOLDER


def test_other_peoples_private_images_do_not_exist(core: Core, tree: ImageTree) -> None:
    image = core.post("f/secret", b"secret", BOB)
    assert walk(tree) == {}
    for path in ("f", "f/secret", f"f/secret~{image.id}", f".glance/by-id/{image.id}", f".glance/json/{image.id}.json"):
        with pytest.raises(PathNotFound):
            tree.lookup(path)
    tree.make_folder("f")
    put(tree, "f/secret", b"mine")
    mine = put(tree, "f/secret", b"mine again")
    assert set(walk(core.tree(ADMIN))) == {"f", f"f/secret~{mine.id}", "f/secret"}


def test_listing_a_folder_reads_the_registry_a_few_times(
    core: Core, tree: ImageTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        core.post(f"f/{number % 50}", None)
    reads: list[None] = []
    database = core.registry._database
    reading = database.reading

    def counted() -> AbstractContextManager[Connection]:
        reads.append(None)
        return reading()

    monkeypatch.setattr(database, "reading", counted)
    assert len(names(tree, "f")) == 60
    # A look at each namesake is among them: its path could be another image's name.
    assert len(reads) <= 5 + 2 * 10


def test_what_is_no_folder_has_nothing_in_it(core: Core, tree: ImageTree) -> None:
    core.post("a")
    for act in (lambda: names(tree, "a"), lambda: tree.create("a/b"), lambda: tree.make_folder("a/b")):
        with pytest.raises(NotAFolder):
            act()
    for act in (lambda: names(tree, "b"), lambda: tree.create("b/c"), lambda: tree.make_folder("b/c")):
        with pytest.raises(PathNotFound):
            act()


# ---- moving


def test_renaming_an_image_copies_nothing(core: Core, tree: ImageTree) -> None:
    image = put(tree, "a", b"abc")
    tree.make_folder("f")
    entry = tree.rename("a", "f/b")
    assert entry.image is not None
    assert (entry.image.id, entry.image.location, entry.image.name) == (image.id, image.location, "f/b")
    assert core.images.get(ALICE, image.id).name == "f/b"


def test_renaming_onto_something_needs_leave(core: Core, tree: ImageTree) -> None:
    put(tree, "a", b"a")
    put(tree, "b", b"b")
    core.post("theirs", b"theirs", BOB, is_public=True)
    core.post("safe", b"safe", protected=True)
    tree.make_folder("f")
    refusals: list[tuple[str, str, type[GlancefsError]]] = [
        *(("a", "f", IsAFolder), ("f", "a", NotAFolder), ("a", "theirs", Forbidden), ("theirs", "x", Forbidden)),
        *(("a", "safe", ProtectedImage), ("none", "x", PathNotFound), ("a", "none/x", PathNotFound)),
        *(("a", "b/x", NotAFolder), ("f", "f/g", InvalidRequest), ("a", ".glance/x", Forbidden)),
        *((".glance/stats", "x", Forbidden), ("", "x", InvalidRequest)),
    ]
    for old, new, error in refusals:
        with pytest.raises(error):
            tree.rename(old, new)
    with pytest.raises(PathTaken):
        tree.rename("a", "b", replace=False)
    assert tree.rename("a", "a").path == "a"
    tree.rename("a", "b")
    assert read(tree, "b") == b"a"
    assert set(names(tree)) == {"f", "b", "safe", "theirs"}


def test_folders_move_with_everything_and_stay_when_they_are_empty(core: Core, tree: ImageTree) -> None:
    core.post("f/g/a", b"a")
    put_staged(tree, "f/g/.b", b"b")
    tree.make_folder("full")
    put(tree, "full/x")
    with pytest.raises(FolderNotEmpty):
        tree.rename("f", "full")
    tree.rename("f/g", "h")
    assert set(walk(tree)) == {"f", "h", "h/a", "h/.b", "full", "full/x"}
    with pytest.raises(FolderNotEmpty):
        tree.remove_folder("h")
    tree.remove("h/.b")
    tree.remove("h/a")
    assert names(tree, "h") == []
    tree.remove_folder("h")
    tree.remove_folder("f")
    assert set(walk(tree)) == {"full", "full/x"}
    for path, error in (("full/x", NotAFolder), ("none", PathNotFound), ("", Forbidden), (".glance/json", Forbidden)):
        with pytest.raises(error):
            tree.remove_folder(path)


def test_removing_needs_leave(core: Core, tree: ImageTree) -> None:
    core.post("theirs", context=BOB, is_public=True)
    core.post("safe", protected=True)
    tree.make_folder("f")
    refusals: list[tuple[str, type[GlancefsError]]] = [
        *(("theirs", Forbidden), ("safe", ProtectedImage), ("f", IsAFolder), ("none", PathNotFound)),
        *((".glance/errors", Forbidden), (".glance/by-id/1", Forbidden), (".glance", Forbidden)),
    ]
    for path, error in refusals:
        with pytest.raises(error):
            tree.remove(path)
    assert tree.lookup("theirs").is_changeable is False


# ---- the mount's own folder


def test_links_lead_to_the_one_place_of_an_image(core: Core, tree: ImageTree) -> None:
    for name, kind in (("a", "raw"), ("f/b", "kernel"), ("a", "raw"), ("f%2Fb", "kernel"), ("x" * 300, "kernel")):
        core.post(name, type=ImageType(kind))
    core.post("a/in", type=ImageType.RAW)
    places = {entry.image.id: path for path, entry in walk(tree).items() if entry.image}
    for folder in (".glance/by-id", ".glance/by-type/raw", ".glance/by-type/kernel"):
        links = [entry for page in tree.list(folder, page_size=2) for entry in page]
        assert (
            len({entry.path for entry in links}) == len(links) == {"by-id": 6, "raw": 3}.get(folder[-5:].strip("/"), 3)
        )
        for link in links:
            assert tree.lookup(link.path) == link
            target = posixpath.normpath(posixpath.join(folder, tree.read_link(link)))
            assert target in places.values()
    assert tree.read_link(tree.lookup(".glance/by-type/kernel/f%2Fb")) == "../../../f/b"
    assert tree.read_link(tree.lookup(".glance/by-id/1")) == "../../a~1"
    for path in (".glance/by-type/kernel/a", ".glance/by-id/99", ".glance/nothing", ".glance/by-type/none"):
        with pytest.raises(PathNotFound):
            tree.lookup(path)


def test_documents_tell_of_images_and_of_the_mount(core: Core, tree: ImageTree) -> None:
    image = core.post("a", properties={"p": "1"})
    entry = tree.lookup(f".glance/json/{image.id}.json")
    text = tree.read_document(entry)
    assert entry.size == len(text)
    assert json.loads(text)["properties"] == {"p": "1"}
    assert json.loads(text)["size"] == 6
    assert tree.read_document(tree.lookup(".glance/stats")) == b"1 2 3\n"
    assert names(tree, ".glance") == ["by-id", "by-type", "json", "pending", "errors", "stats"]
    assert names(tree, ".glance/json") == ["1.json"]
    with pytest.raises(NotAFolder):
        names(tree, ".glance/stats")


def test_nothing_can_be_made_in_the_mounts_own_folder(tree: ImageTree) -> None:
    for act in (tree.create, tree.make_folder):
        for path in (".glance/x", ".glance/pending/x", ".glance"):
            with pytest.raises((Forbidden, PathTaken)):
                act(path)


# ---- others' changes


def test_the_feed_tells_which_paths_may_differ(core: Core, tree: ImageTree) -> None:
    since = tree.revision()
    mine = core.post("f/a")
    secret = core.post("b", context=BOB)
    tree.make_folder("g")
    core.images.delete(ALICE, mine.id)
    told = tree.changes(since)
    assert {change.key: (change.paths, change.image) for change in told.changes} == {
        f"image:{mine.id}": (("f/a", f"f/a~{mine.id}"), None),
        f"image:{secret.id}": (("b", f"b~{secret.id}"), None),
        "folder:g": (("g",), None),
    }
    assert tree.changes(told.revision).changes == ()
    core.images.update(BOB, secret.id, ImageChanges(is_public=True))
    (change,) = tree.changes(told.revision).changes
    assert change.image == core.images.get(ALICE, secret.id)


def test_a_number_of_a_file_stays_the_same_on_every_mount(core: Core, tree: ImageTree) -> None:
    core.post("a")
    before = tree.lookup("a").ino
    tree.rename("a", "b")
    assert core.tree(BOB).lookup("").ino == tree.lookup("").ino
    assert tree.lookup("b").ino == before


def test_an_image_that_has_the_longest_name_of_a_namesake_hides_nobody(core: Core, tree: ImageTree) -> None:
    name = "x" * 254
    core.post(name, b"first")
    second = core.post(name, b"second")
    core.post(f"{'x' * (254 - len(second.id))}~{second.id}", b"third")
    paths = set(walk(tree))
    assert len(paths) == 3
    assert {read(tree, path) for path in paths} == {b"first", b"second", b"third"}
