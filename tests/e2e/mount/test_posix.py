# SPDX-License-Identifier: Apache-2.0
"""The mount held against a file system of the kernel, as far as they agree, and by itself where POSIX is strict.

What does not agree, and why, is in docs/reference/semantics.md.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.support.mounting import Mount, Mounts

PLAIN = ["a", "b", "d/a", "d/b", "d/e/a", "x/a"]
DOT = [".w", "d/.w"]
FOLDERS = ["d", "d/e", "x", "a"]


def outcome(work: Callable[[], Any]) -> Any:
    """What a call gives, or the errno that it fails with."""
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


class BesideTheKernel(RuleBasedStateMachine):
    """The same calls on the mount and on a file system of the kernel; every answer is the same."""

    here: Path
    there: Path
    turn = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).turn += 1
        self.roots = [self.here / str(self.turn), self.there / str(self.turn)]
        for root in self.roots:
            root.mkdir()

    def both(self, work: Callable[[Path], Any]) -> Any:
        ours, kernels = (outcome(partial(work, root)) for root in self.roots)
        assert ours == kernels
        return ours

    @rule(name=st.sampled_from(PLAIN + DOT), data=st.binary(max_size=40), size=st.sampled_from([1, 5000]))
    def write(self, name: str, data: bytes, size: int) -> None:
        def work(root: Path) -> None:
            (root / name).write_bytes(data * size)

        self.both(work)

    @rule(name=st.sampled_from(PLAIN + DOT))
    def make_exclusively(self, name: str) -> None:
        def work(root: Path) -> None:
            os.close(os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))

        self.both(work)

    @rule(
        name=st.sampled_from(DOT),
        pieces=st.lists(st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=20)), max_size=6),
        cut=st.none() | st.integers(0, 300_000),
    )
    def write_here_and_there(self, name: str, pieces: list[tuple[int, bytes]], cut: int | None) -> None:
        def work(root: Path) -> bytes:
            descriptor = os.open(root / name, os.O_RDWR | os.O_CREAT)
            try:
                for offset, data in pieces:
                    os.pwrite(descriptor, data * 100, offset)
                if cut is not None:
                    os.ftruncate(descriptor, cut)
                return os.pread(descriptor, 1_000_000, 0)
            finally:
                os.close(descriptor)

        self.both(work)

    @rule(old=st.sampled_from(PLAIN + DOT + FOLDERS), new=st.sampled_from(PLAIN + FOLDERS))
    def rename(self, old: str, new: str) -> None:
        def work(root: Path) -> None:
            (root / old).rename(root / new)

        self.both(work)

    @rule(name=st.sampled_from(PLAIN + DOT + FOLDERS))
    def remove(self, name: str) -> None:
        self.both(lambda root: (root / name).unlink())

    @rule(name=st.sampled_from(FOLDERS))
    def make_folder(self, name: str) -> None:
        self.both(lambda root: (root / name).mkdir())

    @rule(name=st.sampled_from(FOLDERS))
    def remove_folder(self, name: str) -> None:
        self.both(lambda root: (root / name).rmdir())

    @rule(name=st.sampled_from(PLAIN + DOT), seconds=st.integers(1, 2**31))
    def set_times(self, name: str, seconds: int) -> None:
        def work(root: Path) -> int:
            os.utime(root / name, (seconds, seconds))
            return (root / name).stat().st_mtime_ns

        self.both(work)

    @rule(name=st.sampled_from(PLAIN + DOT), start=st.integers(0, 100_000), size=st.integers(0, 10_000))
    def read_a_part(self, name: str, start: int, size: int) -> None:
        def work(root: Path) -> bytes:
            with (root / name).open("rb") as file:
                return os.pread(file.fileno(), size, start)

        self.both(work)

    @invariant()
    def both_show_the_same_tree(self) -> None:
        def work(root: Path) -> list[tuple[str, bool, int, bytes]]:
            return sorted(
                (
                    str(path.relative_to(root)),
                    path.is_dir(),
                    0 if path.is_dir() else path.stat().st_size,
                    b"" if path.is_dir() else path.read_bytes(),
                )
                for path in root.rglob("*")
            )

        self.both(work)


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("examples", "steps"), [(8, 30), pytest.param(200, 60, marks=pytest.mark.soak)], ids=["short", "long"]
)
def test_calls_give_what_a_file_system_of_the_kernel_gives(
    mounted: Mount, tmp_path: Path, examples: int, steps: int
) -> None:
    BesideTheKernel.here, BesideTheKernel.there = mounted.point, tmp_path / "kernel"
    BesideTheKernel.there.mkdir()
    run_state_machine_as_test(
        BesideTheKernel,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck), database=None
        ),
    )
    assert "Traceback" not in mounted.log()


def code_of(work: Callable[[], object]) -> str:
    return str(outcome(work))


def test_open_flags(mounted: Mount) -> None:
    assert code_of(lambda: os.open(mounted / "none", os.O_RDONLY)) == "ENOENT"
    assert code_of(lambda: os.open(mounted / "none", os.O_WRONLY)) == "ENOENT"
    assert code_of(lambda: os.open(mounted / "none/a", os.O_WRONLY | os.O_CREAT)) == "ENOENT"
    (mounted / "file").write_bytes(b"data")
    (mounted / "folder").mkdir()
    assert code_of(lambda: os.open(mounted / "file/a", os.O_WRONLY | os.O_CREAT)) == "ENOTDIR"
    assert code_of(lambda: os.open(mounted / "folder", os.O_WRONLY)) == "EISDIR"
    assert code_of(lambda: os.open(mounted / "file", os.O_RDONLY | os.O_DIRECTORY)) == "ENOTDIR"
    assert code_of(lambda: os.open(mounted / "file", os.O_WRONLY)) == "EPERM"
    assert code_of(lambda: os.open(mounted / "file", os.O_RDWR)) == "EPERM"


def test_reading_through_a_descriptor_for_writing_and_the_other_way_round(mounted: Mount) -> None:
    with _opened(mounted / "a", os.O_WRONLY | os.O_CREAT) as descriptor:
        os.write(descriptor, b"data")
        assert code_of(lambda: os.read(descriptor, 1)) == "EBADF"
    with _opened(mounted / "a", os.O_RDONLY) as descriptor:
        assert code_of(lambda: os.write(descriptor, b"x")) == "EBADF"
        assert code_of(lambda: os.ftruncate(descriptor, 1)) == "EINVAL"


def test_a_removed_file_goes_on_for_who_has_it_open(mounted: Mount) -> None:
    with _opened(mounted / ".a", os.O_RDWR | os.O_CREAT) as descriptor:
        os.write(descriptor, b"data")
        (mounted / ".a").unlink()
        assert os.fstat(descriptor).st_nlink == 0
        os.write(descriptor, b" and more")
        assert os.pread(descriptor, 100, 0) == b"data and more"
        os.utime(descriptor, (5, 5))
        os.ftruncate(descriptor, 4)
        assert os.fstat(descriptor).st_size == 4
    assert list(mounted.point.iterdir()) == []
    assert mounted.images() == []


def test_times_keep_their_nanoseconds(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    for nanoseconds in (0, 1, 10**18 + 123_456_789, -(10**9)):
        os.utime(mounted / "a", ns=(0, nanoseconds))
        assert (mounted / "a").stat().st_mtime_ns == nanoseconds


def test_a_time_may_be_left_as_it_is(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    os.utime(mounted / "a", (7, 7))
    mounted.run("touch", "-a", "a")
    assert (mounted / "a").stat().st_mtime == 7


def test_an_offset_behind_the_end_reads_nothing(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    with _opened(mounted / "a", os.O_RDONLY) as descriptor:
        assert os.pread(descriptor, 10, 4) == b""
        assert os.pread(descriptor, 10, 1 << 40) == b""
        assert os.pread(descriptor, 10, 2) == b"ta"


def test_a_whole_path_may_be_long_and_a_name_of_any_letters(mounted: Mount) -> None:
    deep = mounted.point
    for name in ("ü" * 100, "日" * 80, "a b'c\"d$", "-rf", "~", "%41"):
        deep = deep / name
        deep.mkdir()
    (deep / "image").write_bytes(b"data")
    assert list(mounted.point.rglob("image")) == [deep / "image"]
    assert mounted.images()[0].name == str((deep / "image").relative_to(mounted.point))


def test_folders_are_listed_whole_while_they_change(mounted: Mount) -> None:
    for number in range(300):
        (mounted / f"f{number:03}").touch()
    seen = []
    with os.scandir(mounted.point) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 3 == 0:
                (mounted / entry.name).unlink()
    assert len(seen) == len(set(seen)) == 300


def test_direct_input_and_output(mounted: Mount) -> None:
    mounted.run("dd", "if=/dev/urandom", "of=a", "bs=1M", "count=4", "oflag=direct")
    mounted.run("dd", "if=a", "of=b", "bs=64k", "iflag=direct")
    assert mounted.content("a") == mounted.content("b")


def test_the_same_inode_number_before_and_after(mounts: Mounts) -> None:
    mounted = mounts.mount()
    (mounted / "a").write_bytes(b"data")
    mounted.end()
    again = mounts.mount()
    number = (again / "a").stat().st_ino
    again.run("mv", "a", "b")
    assert (again / "b").stat().st_ino == number
    again.end()
    assert (mounts.mount() / "b").stat().st_ino == number


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
