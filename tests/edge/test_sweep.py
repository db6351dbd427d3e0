# SPDX-License-Identifier: Apache-2.0
"""Taking back what the dead left, over a real registry and real stores: `glancefs.sweep`.

Threading: none of its own; an upload that runs meanwhile is played by its steps.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from glancefs.errors import DataMissing, StoreUnavailable
from glancefs.model import Image, ImageStatus, ImageType, Location
from glancefs.registries.base import ImageQuery
from glancefs.registries.sql import SqlRegistry
from glancefs.stores.base import Store, Swept
from glancefs.stores.file import FileStore
from glancefs.stores.memory import MemoryStore
from glancefs.sweep import sweep

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    registry = SqlRegistry(url=f"sqlite:///{tmp_path / 'registry.sqlite'}", migrate=True)
    yield registry
    registry.close()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(path=tmp_path / "store")


@pytest.fixture
def stores(store: FileStore) -> Mapping[str, Store]:
    return {"file": store, "memory": MemoryStore()}


def image(status: ImageStatus, location: Location | None = None) -> Image:
    return Image(
        id="",
        name="debian",
        type=ImageType.MACHINE,
        status=status,
        size=4,
        store="file",
        owner="alice",
        is_public=False,
        created_at=NOW,
        updated_at=NOW,
        checksum="sha256:" + "0" * 64,
        location=location,
    )


def added(registry: SqlRegistry, store: Store) -> Image:
    with store.claim() as key:
        stored = store.add(key, io.BytesIO(b"data"), size=4)
        return registry.add(image(ImageStatus.AVAILABLE, stored.location))


def died_saving(registry: SqlRegistry, store: Store, *, is_complete: bool = False) -> Image:
    """Leave what a process leaves that dies between two commits."""
    with store.claim() as key:
        saving = registry.add(image(ImageStatus.SAVING, Location(store=store.scheme, key=key)))
        if is_complete:
            store.add(key, io.BytesIO(b"data"), size=4)
    return saving


def test_there_is_nothing_to_do_where_nobody_died(registry: SqlRegistry, stores: Mapping[str, Store]) -> None:
    kept = added(registry, stores["file"])
    assert sweep(registry=registry, stores=stores) == Swept()
    assert registry.get(kept.id) == kept
    assert kept.location is not None
    assert stores["file"].size(kept.location) == 4


@pytest.mark.parametrize("is_complete", [False, True])
def test_an_image_whose_uploader_died_waits_for_its_data_again(
    registry: SqlRegistry, stores: Mapping[str, Store], *, is_complete: bool
) -> None:
    kept = added(registry, stores["file"])
    saving = died_saving(registry, stores["file"], is_complete=is_complete)
    swept = sweep(registry=registry, stores=stores)
    assert (swept.requeued, swept.orphans, swept.uploads) == (1, int(is_complete), 0)
    again = registry.get(saving.id)
    assert again == replace(saving, status=ImageStatus.QUEUED, location=None, revision=again.revision)
    assert again.revision > saving.revision
    assert registry.get(kept.id) == kept
    assert sweep(registry=registry, stores=stores) == Swept()


def test_more_of_them_than_a_page_holds_are_all_found(registry: SqlRegistry, stores: Mapping[str, Store]) -> None:
    for _ in range(501):
        registry.add(image(ImageStatus.SAVING, Location(store="file", key="0" * 32)))
    assert sweep(registry=registry, stores=stores).requeued == 501


def test_a_running_upload_into_an_image_is_left_alone(registry: SqlRegistry, store: FileStore) -> None:
    with store.claim() as key:
        location = Location(store="file", key=key)
        saving = registry.add(image(ImageStatus.SAVING, location))
        assert sweep(registry=registry, stores={"file": store}) == Swept()
        stored = store.add(key, io.BytesIO(b"data"), size=4)
        assert sweep(registry=registry, stores={"file": store}) == Swept()
        available = replace(saving, status=ImageStatus.AVAILABLE, checksum=stored.checksum)
        registry.replace(available, expected_revision=saving.revision)
    assert sweep(registry=registry, stores={"file": store}) == Swept()
    assert store.size(location) == 4


def test_an_upload_that_ends_while_it_is_looked_at_keeps_its_image(registry: SqlRegistry, store: FileStore) -> None:
    saving = died_saving(registry, store, is_complete=True)

    class Slow(FileStore):
        def is_claimed(self, location: Location) -> bool:
            # The uploader commits its row and ends its claim right here.
            available = replace(saving, status=ImageStatus.AVAILABLE)
            registry.replace(available, expected_revision=saving.revision)
            return False

    slow = Slow(path=store.staging_folder.parent)
    assert sweep(registry=registry, stores={"file": slow}) == Swept()
    assert registry.get(saving.id).status is ImageStatus.AVAILABLE
    assert saving.location is not None
    assert store.size(saving.location) == 4


def test_an_image_in_a_store_that_is_not_here_is_left_to_those_who_have_it(
    registry: SqlRegistry, store: FileStore
) -> None:
    elsewhere = registry.add(image(ImageStatus.SAVING, Location(store="swift", key="0" * 32)))
    nowhere = registry.add(image(ImageStatus.SAVING))
    assert sweep(registry=registry, stores={"file": store}) == Swept()
    assert [registry.get(one.id) for one in (elsewhere, nowhere)] == [elsewhere, nowhere]


def test_data_of_deleted_images_and_of_uploads_without_a_row_are_removed(
    registry: SqlRegistry, stores: Mapping[str, Store]
) -> None:
    deleted, kept = added(registry, stores["file"]), added(registry, stores["file"])
    registry.delete(deleted.id, expected_revision=deleted.revision, deleted_at=NOW)
    for store in stores.values():
        with store.claim() as key:
            store.add(key, io.BytesIO(b"no row came"), size=None)
    assert sweep(registry=registry, stores=stores).orphans == 3
    assert deleted.location is not None
    assert kept.location is not None
    with pytest.raises(DataMissing):
        stores["file"].open(deleted.location)
    assert stores["file"].size(kept.location) == 4


def test_a_registry_in_which_nothing_ever_happened_condemns_nothing(registry: SqlRegistry, store: FileStore) -> None:
    with store.claim() as key:
        stored = store.add(key, io.BytesIO(b"of another registry"), size=None)
    assert sweep(registry=registry, stores={"file": store}) == Swept()
    assert store.size(stored.location) == 19


def test_a_store_that_fails_does_not_keep_others_from_being_swept(registry: SqlRegistry) -> None:
    class Broken(MemoryStore):
        def sweep(self, known: Callable[[Collection[Location]], Collection[Location]]) -> Swept:
            raise StoreUnavailable("gone")

        def is_claimed(self, location: Location) -> bool:
            raise StoreUnavailable("gone")

    stores = {"broken": Broken(scheme="broken"), "memory": MemoryStore()}
    added(registry, stores["memory"])
    lost = registry.add(image(ImageStatus.SAVING, Location(store="broken", key="0" * 32)))
    with stores["memory"].claim() as key:
        orphan = stores["memory"].add(key, io.BytesIO(b"no row came"), size=None)
    with pytest.raises(StoreUnavailable, match="gone"):
        sweep(registry=registry, stores=stores)
    with pytest.raises(DataMissing):
        stores["memory"].open(orphan.location)
    assert registry.get(lost.id).status is ImageStatus.SAVING
    assert not registry.find(ImageQuery(sees_all=True, is_public=None, status=ImageStatus.QUEUED))
