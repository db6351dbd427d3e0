# SPDX-License-Identifier: Apache-2.0
"""The store contract over `glancefs.stores.file`, and what this store promises beyond it, within one process.

Threading: none of its own.
"""

from __future__ import annotations

import fcntl
import io
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glancefs.errors import DataMissing, StoreFull, StoreUnavailable
from glancefs.model import Location
from glancefs.stores.base import Store, Stored, Swept
from glancefs.stores.disk import sync_folder
from glancefs.stores.file import FileStore
from glancefs.stores.pipeline import SMALL
from tests.contract.store_contract import Breaking, NeverRead, StoreContract
from tests.contract.store_steps import checksum_of, none_known, put, put_copy, read, some_bytes
from tests.support.capabilities import CAPABILITIES, in_ci, refuse_or_skip
from tests.support.mounts import mounted
from tests.support.processes import run

MIB = 1024 * 1024


class TestFileStore(StoreContract):
    def make(self, folder: Path) -> Store:
        return FileStore(path=folder / "not" / "there" / "yet")

    # ext4 and tmpfs set room aside themselves; ext2 can't, so there the store counts what it promised.
    @pytest.fixture(params=["tmpfs", "ext4", "ext2"])
    def small_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
        root = CAPABILITIES["root"]
        refuse_or_skip([] if root.present() else [root], in_ci=in_ci())
        with mounted(tmp_path, kind=request.param, size=40 * MIB) as place:
            yield FileStore(path=place / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return FileStore(path=folder)


def data_file(folder: Path, location: Location) -> Path:
    return folder / location.key[:2] / location.key


# Files


def test_only_the_owner_may_read_files_and_enter_folders(store: FileStore, folder: Path) -> None:
    stored = put(store, b"data")
    assert stat.S_IMODE(data_file(folder, stored.location).stat().st_mode) == 0o600
    folders = [folder, folder / "incoming", data_file(folder, stored.location).parent]
    assert {stat.S_IMODE(place.stat().st_mode) for place in folders} == {0o700}


def test_nothing_is_made_before_it_is_needed(store: FileStore, folder: Path) -> None:
    assert store.sweep(none_known) == Swept()
    assert not folder.exists()


@pytest.mark.parametrize("size", [100, 20 * MIB])
def test_bytes_are_durable_before_the_name_and_the_name_before_the_answer(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    effects: list[str] = []
    note_effects(effects, monkeypatch)
    with store.claim() as key:
        effects.clear()
        store.add(key, Breaking(size, lambda: effects.append("end of data")), size=size)
    assert effects == [
        "end of data",
        f"fdatasync {folder / 'incoming' / key}",
        f"rename {folder / 'incoming' / key} {folder / key[:2] / key}",
        f"fsync {folder / key[:2]}",
        f"fsync {folder}",
    ]


def test_adopted_bytes_are_durable_before_the_name_too(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects: list[str] = []
    note_effects(effects, monkeypatch)
    with store.claim() as key:
        (store.staging_folder / key).write_bytes(b"staged")
        effects.clear()
        store.adopt(key, store.staging_folder / key, checksum=None)
    assert [effect.split()[0] for effect in effects] == ["fdatasync", "rename", "fsync", "fsync"]


def test_without_sync_nothing_waits_for_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    effects: list[str] = []
    note_effects(effects, monkeypatch)
    stored = put(FileStore(path=folder, sync=False), b"data")
    assert [effect.split()[0] for effect in effects] == ["rename"]
    assert data_file(folder, stored.location).read_bytes() == b"data"


def note_effects(effects: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write down what becomes durable when; everything is carried out as it would be anyway."""

    def noting(name: str, act: Callable[[int], None]) -> Callable[[int], None]:
        def noted(descriptor: int) -> None:
            effects.append(f"{name} {Path(f'/proc/self/fd/{descriptor}').readlink()}")
            act(descriptor)

        return noted

    rename = os.rename

    def renaming(old: Path, new: Path) -> None:
        rename(old, new)
        effects.append(f"rename {old} {new}")

    monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
    monkeypatch.setattr(os, "fdatasync", noting("fdatasync", os.fdatasync))
    monkeypatch.setattr(os, "rename", renaming)


def test_room_set_aside_and_not_used_is_given_back(store: FileStore, folder: Path) -> None:
    with store.claim() as key:
        stored = store.add(key, io.BytesIO(b"x" * 10), size=50 * MIB)
    assert data_file(folder, stored.location).stat().st_blocks * 512 < MIB


def test_what_a_file_may_not_exceed_is_a_full_store(store: FileStore, limit_file_size: Callable[[int], None]) -> None:
    limit_file_size(3 * MIB)
    with store.claim() as key, pytest.raises(StoreFull):
        store.add(key, Breaking(8 * MIB, lambda: None), size=None)
    assert store.sweep(none_known) == Swept()


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# What lies there and is not ours


def test_what_others_put_into_the_folders_is_left_alone(store: FileStore, folder: Path) -> None:
    put(store, b"an orphan")
    strangers = [folder / "README", folder / "incoming" / "notes.txt", folder / "ab" / "c", folder / "zz" / ("0" * 32)]
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_text("mine")
    (folder / "lost+found").mkdir()
    (folder / "ab" / ("ab" * 16)).mkdir()
    assert store.sweep(none_known).orphans == 1
    assert [stranger.read_text() for stranger in strangers] == ["mine"] * 4
    assert (folder / "ab" / ("ab" * 16)).is_dir()


def test_a_link_in_the_place_of_data_is_not_followed(store: FileStore, folder: Path, tmp_path: Path) -> None:
    stored = put(store, b"data")
    place = data_file(folder, stored.location)
    (tmp_path / "secret").write_text("secret")
    place.unlink()
    place.symlink_to(tmp_path / "secret")
    for ask in (store.open, store.size):
        with pytest.raises(DataMissing):
            ask(stored.location)
    place.unlink()
    os.mkfifo(place)
    for ask in (store.open, store.size):
        with pytest.raises(DataMissing):
            ask(stored.location)


# When the engine fails


@pytest.mark.expect_log("Store 'file' failed at beginning an upload")
def test_a_folder_that_is_none_is_an_unavailable_store(store: FileStore, folder: Path) -> None:
    folder.write_text("in the way")
    with pytest.raises(StoreUnavailable, match=r"^The store 'file' failed at beginning an upload: .*\.$") as raised:
        put(store, b"data")
    assert str(folder) not in str(raised.value)


@pytest.mark.expect_log("is not the folder that it was; is its disk mounted?")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_is_taken_away_is_not_made_anew(
    store: FileStore, folder: Path, tmp_path: Path, *, is_replaced: bool
) -> None:
    stored = put(store, b"data")
    folder.rename(tmp_path / "away")
    if is_replaced:
        folder.mkdir()
    for use in (
        lambda: put(store, b"more"),
        lambda: read(store, stored),
        lambda: store.size(stored.location),
        lambda: store.is_claimed(stored.location),
        lambda: store.sweep(lambda _: ()),
        store.space,
    ):
        with pytest.raises(StoreUnavailable, match="is gone"):
            use()
    if is_replaced:
        assert not list(folder.iterdir())
        folder.rmdir()
    (tmp_path / "away").rename(folder)
    assert read(store, stored) == b"data"
    put(store, b"more")


@pytest.mark.needs("root")
@pytest.mark.expect_log("Store 'file' failed at .*: .*Read-only file system")
def test_a_disk_that_became_read_only_is_an_unavailable_store_that_can_be_read(tmp_path: Path) -> None:
    with mounted(tmp_path, kind="tmpfs", size=10 * MIB) as place:
        store = FileStore(path=place / "store")
        stored = put(store, b"data")
        remount(place, "ro")
        with pytest.raises(StoreUnavailable):
            put(store, b"more")
        with pytest.raises(StoreUnavailable):
            store.delete(stored.location)
        assert read(store, stored) == b"data"
        remount(place, "rw")
        put(store, b"more")


@pytest.mark.expect_log("Store 'file' failed at completing an upload")
def test_data_whose_name_could_not_be_made_durable_do_not_stay(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"the first")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with store.claim() as key:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StoreUnavailable):
            store.add(key, io.BytesIO(b"the second"), size=10)
    assert not data_file(folder, Location(store="file", key=key)).exists()
    assert store.sweep(none_known).orphans == 1


# Adopting


@pytest.mark.parametrize("is_checksum_known", [True, False])
def test_a_file_staged_under_the_claimed_key_is_taken_over(
    store: FileStore, folder: Path, *, is_checksum_known: bool
) -> None:
    data = some_bytes(3 * MIB + 5)
    with store.claim() as key:
        staged = store.staging_folder / key
        with staged.open("r+b") as file:
            file.write(data)
        inode = staged.stat().st_ino
        assert store.sweep(none_known) == Swept()
        stored = store.adopt(key, staged, checksum=checksum_of(data) if is_checksum_known else None)
        assert store.is_claimed(stored.location)
        assert store.sweep(none_known) == Swept()
    assert (stored.size, stored.checksum) == (len(data), checksum_of(data))
    assert data_file(folder, stored.location).stat().st_ino == inode
    assert not staged.exists()
    assert read(store, stored) == data


def test_a_file_from_elsewhere_on_the_file_system_is_taken_over(store: FileStore, tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "image.raw"
    file.write_bytes(b"from elsewhere")
    file.chmod(0o644)
    with store.claim() as key:
        stored = store.adopt(key, file, checksum=None)
        assert store.is_claimed(stored.location)
        assert store.sweep(none_known) == Swept()
    assert not file.exists()
    assert not list((folder / "incoming").iterdir())
    assert (stored.checksum, read(store, stored)) == (checksum_of(b"from elsewhere"), b"from elsewhere")
    assert stat.S_IMODE(data_file(folder, stored.location).stat().st_mode) == 0o600


@pytest.mark.expect_log("failed at beginning an upload")
def test_a_file_is_claimed_as_it_is_and_belongs_to_the_claim(store: FileStore, folder: Path, tmp_path: Path) -> None:
    with store.claim():
        pass
    file = tmp_path / "local"
    for is_adopted in (False, True):
        file.write_bytes(b"from elsewhere")
        with store.claim_file(file) as key:
            location = Location(store=store.scheme, key=key)
            assert store.is_claimed(location)
            assert store.sweep(none_known) == Swept()
            assert not file.exists()
            if is_adopted:
                assert store.adopt(key, store.staging_folder / key, checksum=None).location == location
        assert not list((folder / "incoming").iterdir())
        assert not store.is_claimed(location)
    assert data_file(folder, location).read_bytes() == b"from elsewhere"
    with pytest.raises(StoreUnavailable), store.claim_file(file):
        pass
    file.write_bytes(b"another's")
    with file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable), store.claim_file(file):
            pass
    assert file.read_bytes() == b"another's"


@pytest.mark.expect_log("failed at beginning an upload")
def test_a_file_without_a_name_gets_its_first_one_from_the_claim(store: FileStore, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for is_adopted in (False, True):
        descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o644)
        os.write(descriptor, b"from nowhere")
        with store.claim_unnamed(descriptor) as key:
            location = Location(store=store.scheme, key=key)
            assert store.is_claimed(location)
            assert store.sweep(none_known) == Swept()
            # The claim is not the caller's descriptor.
            os.close(descriptor)
            assert store.is_claimed(location)
            if is_adopted:
                assert store.adopt(key, store.staging_folder / key, checksum=None).location == location
        assert not list((folder / "incoming").iterdir())
        assert not store.is_claimed(location)
    assert data_file(folder, location).read_bytes() == b"from nowhere"
    assert stat.S_IMODE(data_file(folder, location).stat().st_mode) == 0o600
    with pytest.raises(StoreUnavailable), store.claim_unnamed(descriptor):
        pass


@pytest.mark.parametrize("layout", ["hole", "data hole", "hole data", "data hole data hole", "data", ""])
def test_holes_stay_holes_and_count_as_zeros(store: FileStore, folder: Path, layout: str) -> None:
    pieces = {"data": some_bytes(SMALL + 3), "hole": bytes(5 * MIB)}
    expected = b"".join(pieces[word] for word in layout.split())
    with store.claim() as key:
        staged = store.staging_folder / key
        with staged.open("r+b") as file:
            for word in layout.split():
                if word == "data":
                    file.write(pieces[word])
                else:
                    file.seek(5 * MIB, io.SEEK_CUR)
            file.truncate(len(expected))
        stored = store.adopt(key, staged, checksum=None)
    assert (stored.size, stored.checksum) == (len(expected), checksum_of(expected))
    assert read(store, stored) == expected
    used = data_file(folder, stored.location).stat().st_blocks * 512
    assert used <= layout.count("data") * (SMALL + 64 * 1024)


def test_a_staged_file_that_is_not_adopted_goes_with_its_claim(store: FileStore, folder: Path) -> None:
    with store.claim() as key:
        (store.staging_folder / key).write_bytes(b"never finished")
    assert not list((folder / "incoming").iterdir())


@pytest.mark.expect_log("Store 'file' failed at adopting a file")
def test_what_is_no_file_is_not_adopted(store: FileStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with store.claim() as key, pytest.raises(StoreUnavailable):
        store.adopt(key, tmp_path / "pipe", checksum=None)
    with store.claim() as key, pytest.raises(StoreUnavailable):
        store.adopt(key, tmp_path / "absent", checksum=None)
    assert store.sweep(none_known) == Swept()


def test_an_upload_that_finds_no_room_asks_for_no_byte_even_when_small(store: FileStore) -> None:
    space = store.space()
    with store.claim() as key, pytest.raises(StoreFull):
        store.add(key, NeverRead(), size=space.free + space.total)


def remount(place: Path, how: str) -> None:
    run(["mount", "-o", f"remount,{how}", place])


# Copying


def sparse(store: FileStore) -> Stored:
    """Add a sparse file of 64 MiB, as the mount does, with a little at its beginning, in its middle and at its end."""
    with store.claim() as key:
        path = store.staging_folder / key
        with path.open("r+b") as file:
            file.write(b"begin")
            file.seek(32 * MIB)
            file.write(some_bytes(2 * MIB))
            file.seek(64 * MIB - 3)
            file.write(b"end")
        return store.adopt(key, path, checksum=None)


def blocks(store: FileStore, stored: Stored) -> int:
    with store.open(stored.location) as stream:
        return os.fstat(stream.fileno()).st_blocks * 512


@pytest.mark.parametrize("way", ["links", "bytes"])
def test_a_copy_takes_no_more_room_than_the_first_and_keeps_its_holes(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    first = sparse(store)
    if way == "bytes":
        # As on a file system without links, or while somebody else has the lock.
        monkeypatch.setattr("glancefs.stores.cloning._link", lambda *_: False)
    copied = put_copy(store, first)
    store.delete(first.location)
    assert (copied.size, blocks(store, copied) < 3 * MIB) == (64 * MIB, True)
    assert read(store, copied, 32 * MIB, 34 * MIB) == some_bytes(2 * MIB)
    assert (read(store, copied, 0, 6), read(store, copied, 64 * MIB - 4)) == (b"begin\0", b"\0end")


@pytest.mark.needs("root", "mkfs.xfs", "mkfs.btrfs")
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_copy_shares_blocks_where_the_file_system_can(tmp_path: Path, kind: str) -> None:
    with mounted(tmp_path, kind=kind, size=320 * MIB) as place:
        store = FileStore(path=place / "store")
        first = put(store, some_bytes(32 * MIB))
        sync_folder(place)
        before = store.space().free
        copied = put_copy(store, first)
        sync_folder(place)
        assert before - store.space().free < 8 * MIB
        files = {inode_of(store, stored) for stored in (first, copied)}
        assert len(files) == 2
        store.delete(first.location)
        with store.open(copied.location) as stream:
            assert checksum_of(stream.read()) == first.checksum
        assert (store.is_claimed(copied.location), store.sweep(none_known).orphans) == (False, 1)


def inode_of(store: FileStore, stored: Stored) -> int:
    with store.open(stored.location) as stream:
        return os.fstat(stream.fileno()).st_ino


@pytest.mark.needs("root")
def test_a_copy_without_room_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glancefs.stores.cloning._link", lambda *_: False)
    with mounted(tmp_path, kind="ext4", size=40 * MIB) as place:
        store = FileStore(path=place / "store")
        first = put(store, some_bytes(20 * MIB))
        with store.claim() as key, pytest.raises(StoreFull):
            store.copy(key, first.location, checksum=first.checksum)
        assert list(store.staging_folder.iterdir()) == []
        assert read(store, first) == some_bytes(20 * MIB)


def test_data_that_somebody_claims_are_copied_all_the_same(store: FileStore) -> None:
    with store.claim() as key:
        first = store.add(key, io.BytesIO(b"data"), size=4)
        copied = put_copy(store, first)
        assert read(store, copied) == b"data"
        assert not store.is_claimed(copied.location)


@pytest.mark.expect_log("failed at copying data")
def test_a_crash_between_the_two_names_leaves_what_a_sweep_takes(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(store, b"data")
    with monkeypatch.context() as patch, store.claim() as key:
        patch.setattr(Path, "unlink", lambda *_args, **_said: None)
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(StoreUnavailable):
            store.copy(key, first.location, checksum=first.checksum)
    assert len(list(store.staging_folder.iterdir())) == 2
    swept = store.sweep(lambda locations: locations)
    assert (swept.uploads, swept.orphans, swept.size) == (2, 0, 0)
    assert read(store, first) == b"data"


def refuse(*_: object) -> None:
    raise OSError(5, "as if the disk had died")
