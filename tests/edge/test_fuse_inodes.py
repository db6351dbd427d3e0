# SPDX-License-Identifier: Apache-2.0
"""Inodes: lookup counts are exact, paths follow renames, and memory does not grow with what was forgotten."""

import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest

from glancefs.fuse.inodes import Inode, Inodes
from glancefs.fuse.statistics import Statistics
from glancefs.tree import Entry, EntryKind, Listed
from glancefs.tree.entries import inode_number


def entry(path: str, *, key: str | None = None, kind: EntryKind = EntryKind.IMAGE, size: int = 0) -> Entry:
    return Entry(path=path, kind=kind, key=key or f"image:{path}", size=size)


def folder(path: str) -> Entry:
    return entry(path, key=f"folder:{path}", kind=EntryKind.FOLDER)


def test_an_inode_lives_until_the_kernel_has_forgotten_every_lookup() -> None:
    inodes = Inodes(statistics=Statistics())
    inode = inodes.see(entry("a"), allocated=0)
    for _ in range(3):
        inodes.count(inode)
    inodes.forget(inode.ino, 2)
    assert inodes.get(inode.ino) is inode
    inodes.forget(inode.ino, 1)
    assert inodes.get(inode.ino) is None
    assert inodes.at("a") is None


def test_an_open_file_keeps_its_inode() -> None:
    inodes = Inodes(statistics=Statistics())
    inode = inodes.see(entry("a"), allocated=0)
    inodes.count(inode)
    inode.uses += 1
    inodes.forget(inode.ino, 1)
    assert inodes.get(inode.ino) is inode
    inode.uses -= 1
    assert inodes.free_if_unused(inode)


def test_forgetting_what_is_unknown_is_fine() -> None:
    inodes = Inodes(statistics=Statistics())
    assert inodes.forget(12345, 1) is None
    assert inodes.forget(1, 1) is None
    assert inodes.get(1) is inodes.root


def test_an_inode_has_the_same_number_after_it_was_forgotten() -> None:
    inodes = Inodes(statistics=Statistics())
    first = inodes.see(entry("a"), allocated=0)
    inodes.count(first)
    inodes.forget(first.ino, 1)
    assert inodes.see(entry("a"), allocated=0).ino == first.ino


def test_a_staged_file_keeps_its_number_as_an_image() -> None:
    inodes = Inodes(statistics=Statistics())
    inode = inodes.see(entry("a", key="staged:x", kind=EntryKind.STAGED), allocated=0)
    inodes.count(inode)
    inodes.bind("image:7", inode)
    seen = inodes.see(entry("a", key="image:7", size=5), allocated=0)
    assert seen is inode
    assert (seen.kind, seen.size) == (EntryKind.IMAGE, 5)
    for _ in range(2):
        inodes.forget(inode.ino, 1)
        assert inodes.of_key("image:7") is None
        assert inodes.number_of(listed("a")) == inode.ino
        again = inodes.see(entry("a", key="image:7", size=5), allocated=0)
        inodes.count(again)
        assert again is not inode
        assert (again.ino, inodes.of_key("image:7")) == (inode.ino, again)
    other = listed("b", key="image:8")
    assert inodes.number_of(other) == other.ino


def test_a_staged_file_keeps_its_number_as_an_image_that_is_listed() -> None:
    inodes = Inodes(statistics=Statistics())
    inode = inodes.see(entry("a", key="staged:x", kind=EntryKind.STAGED), allocated=0)
    inodes.count(inode)
    inodes.bind("image:7", inode)
    inodes.forget(inode.ino, 1)
    inodes.see_listed([listed("a")])
    again = inodes.at("a")
    assert again is not None
    assert (again.ino, again.lookups, again.size) == (inode.ino, 1, 4)
    assert inodes.of_key("image:7") is again
    inodes.see_listed([listed("a")])
    assert again.lookups == 2
    inodes.forget(again.ino, 2)
    assert inodes.get(again.ino) is None


def test_what_is_below_a_renamed_folder_moves_with_it() -> None:
    inodes = Inodes(statistics=Statistics())
    top = inodes.see(folder("a"), allocated=0)
    inside = inodes.see(entry("a/b/c"), allocated=0)
    beside = inodes.see(entry("ab"), allocated=0)
    inodes.move_below("a", "x/y")
    assert (top.path, inside.path, beside.path) == ("x/y", "x/y/b/c", "ab")
    assert inodes.see(folder("x/y"), allocated=0) is top
    assert inodes.at("a") is None


def test_what_is_made_where_a_folder_was_is_another_one() -> None:
    inodes = Inodes(statistics=Statistics())
    moved = inodes.see(folder("a"), allocated=0)
    inodes.count(moved)
    for target in ("b", "c"):
        origin = moved.path
        inodes.move_below(origin, target)
        made = inodes.see(folder(origin), allocated=0)
        inodes.count(made)
        assert made is not moved
        assert made.ino != moved.ino
        assert (inodes.at(origin), inodes.at(target)) == (made, moved)
        assert inodes.see(folder(origin), allocated=0) is made
        assert inodes.see(folder(target), allocated=0) is moved
    for inode in (made, moved):
        inodes.forget(inode.ino, 2)
        assert inodes.of_key(inode.key) is None


def test_what_comes_or_goes_while_somebody_looks_is_noticed() -> None:
    inodes = Inodes(statistics=Statistics())
    inodes.watch("a")
    made = inodes.see(folder("a"), allocated=0)
    assert inodes.has_stirred("a")
    steps: list[Callable[[], object]] = [
        partial(inodes.move_below, "a", "b"),
        partial(inodes.move_below, "b", "a"),
        partial(inodes.leave, "a"),
        partial(inodes.move, made, "a"),
        partial(inodes.lose, made),
    ]
    for work in steps:
        inodes.watch("a")
        inodes.see(folder("beside"), allocated=0)
        assert not inodes.has_stirred("a")
        inodes.watch("a")
        work()
        assert inodes.has_stirred("a")
    assert not inodes.has_stirred("a")


def test_what_was_at_the_target_of_a_rename_gives_way() -> None:
    inodes = Inodes(statistics=Statistics())
    old = inodes.see(entry("a"), allocated=0)
    new = inodes.see(entry("b"), allocated=0)
    inodes.lose(old)
    inodes.move(new, "a")
    assert inodes.at("a") is new
    assert old.is_gone
    inodes.count(old)
    inodes.forget(old.ino, 1)
    assert inodes.at("a") is new


def test_memory_is_flat_over_very_many_lookups() -> None:
    inodes = Inodes(statistics=Statistics())

    def look(rounds: int) -> None:
        for number in range(rounds):
            inode = inodes.see(entry(f"image-{number % 5000}"), allocated=0)
            inodes.count(inode)
            inodes.forget(inode.ino, 1)

    look(5_000)
    tracemalloc.start()
    try:
        look(20_000)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        look(300_000)
        tracemalloc.start()
        look(20_000)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(inodes) == 1
    assert after < before + 100_000


def test_a_folder_of_which_all_is_known_is_no_longer_once_something_is_forgotten() -> None:
    inodes = Inodes(statistics=Statistics())

    def whole(path: str) -> Inode:
        made = inodes.see(folder(path), allocated=0)
        inodes.count(made)
        made.is_whole = True
        return made

    here = whole("a")
    inode = inodes.see(entry("a/b"), allocated=0)
    inodes.count(inode)
    inodes.lose(inode)
    assert [here.is_whole] == [True]
    inodes.forget(inode.ino, 1)
    assert [here.is_whole] == [True]
    inode = inodes.see(entry("a/c"), allocated=0)
    inodes.count(inode)
    inodes.forget(inode.ino, 1)
    assert [here.is_whole] == [False]
    there = whole("d")
    inodes.doubt("d/e")
    assert [there.is_whole] == [False]
    moved = whole("f")
    inodes.move_below("f", "g")
    assert (moved.path, moved.is_whole) == ("g", False)


# ---- what was listed


def listed(path: str, *, key: str = "image:7", size: int = 4) -> Listed:
    return Listed(
        path=path,
        name=path.rpartition("/")[2],
        kind=EntryKind.IMAGE,
        key=key,
        ino=inode_number(key),
        size=size,
        mtime_ns=1,
        ctime_ns=2,
        allocated=4096,
        owner="somebody",
        is_public=True,
        entry=None,
    )


def test_what_was_listed_is_an_inode_for_whoever_asks() -> None:
    statistics = Statistics()
    inodes = Inodes(statistics=statistics)
    inodes.see_listed([listed("a/b")])
    assert statistics.inodes == len(inodes) == 2
    for inode in (inodes.get(inode_number("image:7")), inodes.at("a/b"), inodes.of_key("image:7"), [*inodes][1]):
        assert inode is inodes.at("a/b")
        assert inode is not None
        assert (inode.path, inode.kind, inode.size, inode.allocated) == ("a/b", EntryKind.IMAGE, 4, 4096)
        assert (inode.mtime_ns, inode.ctime_ns, inode.owner, inode.is_public) == (1, 2, "somebody", True)


@pytest.mark.parametrize("asked", [False, True])
def test_what_was_listed_lives_until_the_kernel_has_forgotten_every_listing(*, asked: bool) -> None:
    statistics = Statistics()
    inodes = Inodes(statistics=statistics)
    folder_of_it = inodes.see(folder("a"), allocated=0)
    inodes.count(folder_of_it)
    folder_of_it.is_whole = True
    for _ in range(4):
        inodes.see_listed([listed("a/b")])
    number = inode_number("image:7")
    if asked:
        assert inodes.get(number) is not None
    inodes.forget(number, 1)
    inodes.see_listed([listed("a/b")])
    inodes.forget(number, 3)
    known = inodes.get(number)
    assert known is not None
    assert known.lookups == 1
    inodes.forget(number, 1)
    assert (inodes.get(number), inodes.at("a/b"), statistics.inodes) == (None, None, 2)
    assert not folder_of_it.is_whole


def test_forgetting_what_was_only_listed_frees_it() -> None:
    statistics = Statistics()
    inodes = Inodes(statistics=statistics)
    inodes.see_listed([listed("b"), listed("c", key="image:8")])
    inodes.see_listed([listed("b")])
    inodes.forget(inode_number("image:7"), 2)
    inodes.forget(inode_number("image:8"), 5)
    assert len(inodes) == statistics.inodes == 1
    assert (inodes.at("b"), inodes.at("c")) == (None, None)


def test_what_is_listed_elsewhere_has_moved() -> None:
    inodes = Inodes(statistics=Statistics())
    inodes.see_listed([listed("a")])
    inodes.see_listed([listed("b", size=5)])
    inode = inodes.at("b")
    assert inode is not None
    assert (inode.path, inode.size, inode.lookups, inodes.at("a")) == ("b", 5, 2, None)


def test_what_is_listed_at_the_place_of_another_leaves_that_its_number() -> None:
    inodes = Inodes(statistics=Statistics())
    inodes.see_listed([listed("a")])
    inodes.see_listed([listed("a", key="image:8")])
    old, new = inodes.get(inode_number("image:7")), inodes.at("a")
    assert old is not None
    assert new is not None
    assert (new.key, old.key) == ("image:8", "image:7")
    inodes.forget(old.ino, 1)
    assert inodes.at("a") is new


def test_what_was_listed_below_a_renamed_folder_moves_with_it() -> None:
    inodes = Inodes(statistics=Statistics())
    inodes.see(folder("a"), allocated=0)
    inodes.see_listed([listed("a/b/c"), listed("ab", key="image:8")])
    inodes.move_below("a", "x")
    moved = inodes.at("x/b/c")
    assert moved is not None
    assert (moved.key, inodes.at("a/b/c")) == ("image:7", None)
    assert inodes.at("ab") is not None


def test_an_image_that_was_written_here_keeps_its_number_in_listings() -> None:
    inodes = Inodes(statistics=Statistics())
    inode = inodes.see(entry("a", key="staged:x", kind=EntryKind.STAGED), allocated=0)
    inodes.count(inode)
    inodes.bind("image:7", inode)
    assert inodes.number_of(listed("a")) == inode.ino
    inodes.see_listed([listed("a", size=5)])
    assert (inode.lookups, inode.size, inode.kind) == (2, 5, EntryKind.IMAGE)
    assert inodes.get(inode_number("image:7")) is None
