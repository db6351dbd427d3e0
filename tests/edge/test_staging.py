# SPDX-License-Identifier: Apache-2.0
"""Staged files: written in any order, hashed beside, left behind and found again.

Threading: some tests race threads on purpose; one writes in a process that is killed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glancefs.errors import ImmutableImage, StoreFull, StoreUnavailable, UploadTooLarge
from glancefs.localfile import LocalFile
from glancefs.model import ImageType
from glancefs.staging import Said, StagedState, StagedUpload, Staging, hashing, sweep_staged
from glancefs.stores.file import FileStore
from glancefs.stores.memory import MemoryStore
from tests.support.mounting import eventually

MEBIBYTE = 1 << 20
PIECE = 64 << 10
"""What is hashed at once in the tests of any order of writes."""
# Writes cluster around the places where hashing beside begins and goes on.
OFFSETS = st.integers(0, 3).flatmap(lambda block: st.integers(max(block * PIECE - 5000, 0), block * PIECE + 5000))
STEPS = st.one_of(
    st.tuples(st.just("write"), OFFSETS, st.integers(1, 9000)),
    st.tuples(st.just("append"), st.just(0), st.sampled_from([1, 5000, PIECE, 2 * PIECE, 3 * PIECE + 1])),
    st.tuples(st.just("truncate"), OFFSETS, st.just(0)),
)


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(size + seed).randbytes(size)


def checksum_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make(folder: Path, user: str = "alice", **options: object) -> Staging:
    return Staging(folder=folder / "staged", user=user, **options)  # type: ignore[arg-type]  # the options are Staging's


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    staging = make(tmp_path)
    yield staging
    staging.close()


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "AT_ONCE", PIECE)


@pytest.mark.usefixtures("small_pieces")
@given(steps=st.lists(STEPS, max_size=12), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_where_comes_back_with_its_checksum(
    steps: list[tuple[str, int, int]], seed: int, staging: Staging
) -> None:
    upload = staging.create("a")
    model = bytearray()
    for kind, offset, size in steps:
        if kind == "truncate":
            upload.truncate(offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
            continue
        start = len(model) if kind == "append" else offset
        piece = some_bytes(size, seed)
        assert upload.write_at(start, piece) == size
        model.extend(bytes(max(0, start + size - len(model))))
        model[start : start + size] = piece
    assert upload.size == len(model)
    assert upload.read_at(0, len(model) + 1) == bytes(model)
    sealed = upload.seal()
    assert (sealed.size, sealed.checksum) == (len(model), checksum_of(bytes(model)))
    upload.discard()


def test_a_file_written_by_many_threads_at_once_has_its_checksum(staging: Staging) -> None:
    upload = staging.create("a")
    pieces = [some_bytes(MEBIBYTE, number) for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        for number in pool.map(lambda number: upload.write_at(number * MEBIBYTE, pieces[number]), range(32)):
            assert number == MEBIBYTE
    assert upload.seal().checksum == checksum_of(b"".join(pieces))


def test_holes_stay_holes_until_the_file_is_adopted(tmp_path: Path) -> None:
    store = FileStore(path=tmp_path / "store")
    staging = make(store.staging_folder)
    upload = staging.create("a")
    upload.write_at(256 * MEBIBYTE, b"end")
    assert upload.size == 256 * MEBIBYTE + 3
    assert upload.allocated() < MEBIBYTE
    file = upload.seal()
    with store.claim() as key:
        stored = store.adopt(key, file.path, checksum=file.checksum)
        with store.open(stored.location) as stream:
            assert os.fstat(stream.fileno()).st_blocks * 512 < MEBIBYTE
            assert (stored.size, stored.checksum) == (file.size, file.checksum)
            assert hashlib.sha256(stream.read()).hexdigest() == file.checksum.removeprefix("sha256:")
    staging.close()


def test_a_file_that_only_got_a_size_was_not_written(staging: Staging) -> None:
    upload = staging.create("a")
    upload.truncate(10)
    assert not upload.is_written
    upload.write_at(0, b"x")
    assert upload.is_written


def test_space_and_limits_are_told_where_the_writer_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = make(tmp_path, max_upload=100)
    upload = staging.create("a")
    for act in (lambda: upload.write_at(99, b"xy"), lambda: upload.truncate(101)):
        with pytest.raises(UploadTooLarge):
            act()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFull):
        upload.write_at(0, b"x")
    monkeypatch.undo()
    assert upload.size == 0
    upload.write_at(0, b"x")
    assert upload.seal().checksum == checksum_of(b"x")
    staging.close()


def test_a_sealed_file_takes_no_writes_until_it_is_unsealed(staging: Staging) -> None:
    upload = staging.create("a")
    upload.write_at(0, b"abc")
    upload.seal()
    for act in (lambda: upload.write_at(0, b"x"), lambda: upload.truncate(0), upload.seal):
        with pytest.raises(ImmutableImage):
            act()
    upload.unseal()
    upload.write_at(1, b"x")
    assert upload.seal().checksum == checksum_of(b"axc")


def test_a_discarded_file_serves_those_who_have_it_open_and_leaves_nothing(staging: Staging, tmp_path: Path) -> None:
    upload = staging.create("a")
    upload.write_at(0, b"abc")
    upload.discard()
    upload.discard()
    assert upload.state is StagedState.DISCARDED
    assert [path.name for path in everything_in(tmp_path)] == ["lock"]
    upload.write_at(3, b"d")
    assert upload.read_at(0, 10) == b"abcd"
    staging.forget(upload)
    assert not upload.is_open


def test_fsync_keeps_what_is_known_too(staging: Staging) -> None:
    upload = staging.create("a")
    upload.write_at(0, b"abc")
    upload.fsync()
    upload.know(path="b")
    upload.fsync()
    assert upload.path == "b"


# ---- those who come after


def test_what_a_mount_left_is_found_by_the_next_one(tmp_path: Path) -> None:
    first = make(tmp_path)
    upload = first.create("folder/a", replaces="7")
    upload.write_at(0, b"abc")
    said = Said(
        type=ImageType.KERNEL, id="x", properties=MappingProxyType({"a": "b"}), removed_properties=frozenset("c")
    )
    upload.know(said=said)
    second = make(tmp_path)
    assert second.recover() == []
    first.close()

    (left,) = second.recover()
    assert (left.path, left.state, left.said, left.replaces) == ("folder/a", StagedState.ABORTED, said, None)
    assert left.read_at(0, 10) == b"abc"
    left.write_at(3, b"d")
    assert left.seal().checksum == checksum_of(b"abcd")
    left.unseal()
    left.discard()
    second.close()
    assert everything_in(tmp_path) == []


def test_other_users_files_are_left_alone_until_they_are_old(tmp_path: Path) -> None:
    first = make(tmp_path)
    upload = first.create("a")
    first.close()
    other = make(tmp_path, user="bob")
    assert other.recover() == []
    other.close()
    data = next(path for path in everything_in(tmp_path) if path.name == upload.key)
    os.utime(data, (0, 0))
    other = make(tmp_path, user="bob", keep_for=timedelta(days=1))
    assert other.recover() == []
    other.close()
    assert everything_in(tmp_path) == []


@pytest.mark.expect_log("What was known of the staged file .* is lost")
@pytest.mark.parametrize("damage", [b"", b"[]", b'{"said": 3}'])
def test_a_file_of_which_nothing_is_known_is_found_too(tmp_path: Path, damage: bytes) -> None:
    first = make(tmp_path)
    upload = first.create("a")
    upload.write_at(0, b"abc")
    first.close()
    sidecar = next(path for path in everything_in(tmp_path) if path.name == f"{upload.key}.json")
    sidecar.write_bytes(damage)
    second = make(tmp_path)
    (left,) = second.recover()
    assert (left.path, left.read_at(0, 9)) == (f"recovered-{upload.key}", b"abc")
    second.close()


def test_what_is_closed_in_the_breath_in_which_it_is_made_is_not_taken_down(tmp_path: Path) -> None:
    first = make(tmp_path)
    empty, quick, noted = (first.create(name) for name in ("empty", "quick", "noted"))
    quick.write_at(0, b"abc", is_noted=False)
    noted.write_at(0, b"abc", is_noted=False)
    noted.note()
    names = {"lock", empty.key, quick.key, noted.key, f"{noted.key}.json"}
    assert {path.name for path in everything_in(tmp_path)} == names
    first.close()
    second = make(tmp_path)
    left = second.recover()
    assert {upload.path for upload in left} == {f"recovered-{quick.key}", "noted"}
    for upload in left:
        upload.discard()
    second.close()
    assert everything_in(tmp_path) == []


def test_a_killed_process_gives_up_its_files(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, time; from glancefs.staging import Staging\n"
        "staging = Staging(folder=pathlib.Path(sys.argv[1]), user='alice')\n"
        "staging.create('a').write_at(0, b'abc'); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "staged"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        staging = make(tmp_path)
        assert staging.recover() == []
        process.send_signal(signal.SIGKILL)
    (left,) = staging.recover()
    assert (left.path, left.read_at(0, 9)) == ("a", b"abc")
    staging.close()


def age(folder: Path) -> None:
    """Make everything in there as old as files can be."""
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))


def test_a_sweep_removes_what_nobody_came_back_for(tmp_path: Path) -> None:
    dead, alive, late = make(tmp_path), make(tmp_path, user="bob"), make(tmp_path, user="carol")
    dead.create("a").write_at(0, b"abc")
    kept = alive.create("b")
    late.create("c").write_at(0, b"abc")
    draft = tmp_path / "staged" / f".{'0' * 16}"
    draft.mkdir()
    (draft / "lock").touch()
    dead.close()
    age(tmp_path)
    late.create("d").write_at(0, b"abc")
    late.close()
    files, size = sweep_staged(tmp_path / "staged")
    assert (files, size > 0) == (2, True)
    assert not draft.exists()
    assert kept.write_at(0, b"abc") == 3
    alive.forget(kept)
    alive.close()
    again = make(tmp_path, user="carol")
    assert [left.path for left in again.recover()] == ["d"]
    again.close()
    age(tmp_path)
    assert sweep_staged(tmp_path / "staged", keep_for=timedelta(days=1))[0] == 2
    assert everything_in(tmp_path) == []
    assert sweep_staged(tmp_path / "staged") == (0, 0)
    assert sweep_staged(tmp_path / "nowhere") == (0, 0)


def test_a_mount_that_begins_beside_sweeps_finds_all_that_was_left(tmp_path: Path) -> None:
    make(tmp_path).close()
    first = make(tmp_path)
    first.create("old").write_at(0, b"abc")
    age(tmp_path)
    first.create("young").write_at(0, b"abc")
    first.close()
    is_over = False

    def sweeping() -> None:
        while not is_over:
            sweep_staged(tmp_path / "staged")

    with ThreadPoolExecutor(2) as pool:
        sweeps = [pool.submit(sweeping) for _ in range(2)]
        try:
            for _ in range(50):
                again = make(tmp_path)
                assert [left.path for left in again.recover()] == ["young"]
                again.close()
        finally:
            is_over = True
        for sweep in sweeps:
            sweep.result()


def test_a_sweep_of_the_store_leaves_staged_files_alone(tmp_path: Path) -> None:
    store = FileStore(path=tmp_path / "store")
    staging = make(store.staging_folder)
    upload = staging.create("a")
    upload.write_at(0, b"abc")
    assert store.sweep(lambda _: ()).uploads == 0
    assert upload.seal().path.read_bytes() == b"abc"
    staging.close()


# ---- handing on


def local_file(path: Path, data: bytes) -> LocalFile:
    path.write_bytes(data)
    return LocalFile(path=path, descriptor=os.open(path, os.O_RDWR), size=len(data), checksum=checksum_of(data))


def test_a_local_file_is_read_by_stores_that_adopt_none(tmp_path: Path) -> None:
    store, file = MemoryStore(), local_file(tmp_path / "a", b"abc")
    with store.claim() as key:
        assert not file.can_be_adopted(store)
        stored = store.add(key, file, size=3)
    assert stored.checksum == file.checksum
    os.close(file._descriptor)


@pytest.mark.expect_log("The data of a failed upload are lost")
def test_a_file_comes_back_as_long_as_its_data_have_a_name(tmp_path: Path) -> None:
    file = local_file(tmp_path / "a", b"abc")
    (tmp_path / "a").rename(tmp_path / "b")
    file.give_back()
    file.give_back()
    assert (tmp_path / "a").samefile(tmp_path / "b")
    (tmp_path / "a").unlink()
    (tmp_path / "b").unlink()
    file.give_back()
    assert not (tmp_path / "a").exists()
    os.close(file._descriptor)


@pytest.mark.expect_log("Store 'staging' failed at beginning a file")
def test_an_unusable_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "staged").write_text("a file")
    staging = make(tmp_path)
    with pytest.raises(StoreUnavailable):
        staging.create("a")
    staging.close()


def test_uploads_close_once(staging: Staging) -> None:
    upload: StagedUpload = staging.create("a")
    upload.close()
    upload.close()
    assert not upload.is_open


@pytest.mark.parametrize("size", [1, 100 << 20])
def test_what_only_passes_through_is_freed_without_anybody_waiting_for_it(tmp_path: Path, size: int) -> None:
    staging = Staging(folder=tmp_path, user="ann", is_passage=True)
    staged = staging.create("a")
    staged.truncate(size)
    staged.discard()
    staging.forget(staged)
    eventually(lambda: not staged.is_open)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"] == []
    staging.close()
