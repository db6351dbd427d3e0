# SPDX-License-Identifier: Apache-2.0
"""Images held against their bytes, over a real registry and real files that are really damaged: `glancefs.audit`.

Threading: none of its own.
"""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from glancefs.audit import Damage, audit
from glancefs.context import RequestContext
from glancefs.images import Images
from glancefs.model import Image, ImageType, Location, NewImage
from glancefs.registries.sql import SqlRegistry
from glancefs.stores.file import FileStore
from tests.contract.store_contract import Breaking

ALICE = RequestContext(user="alice")
SIZE = 3 * 1024 * 1024 + 1


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    registry = SqlRegistry(url=f"sqlite:///{tmp_path / 'registry.sqlite'}", migrate=True)
    yield registry
    registry.close()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(path=tmp_path / "store")


@pytest.fixture
def images(registry: SqlRegistry, store: FileStore) -> Images:
    return Images(registry=registry, stores={"file": store}, default_store="file")


def add(images: Images, name: str, size: int = SIZE) -> Image:
    source = Breaking(size, lambda: None)
    return images.add(ALICE, NewImage(name=name, type=ImageType.RAW), source, size=size)


def data_file(store: FileStore, image: Image) -> Path:
    assert image.location is not None
    return store.staging_folder.parent / image.location.key[:2] / image.location.key


def found(registry: SqlRegistry, store: FileStore, *, quick: bool = False) -> dict[str, Damage]:
    findings = audit(registry=registry, stores={"file": store}, quick=quick)
    return {finding.image_name: finding.what for finding in findings}


def damage_everything(images: Images, registry: SqlRegistry, store: FileStore) -> None:
    for name in ("sound", "lost", "short", "flipped"):
        add(images, name)
    add(images, "empty", size=0)
    images.create(ALICE, NewImage(name="queued", type=ImageType.RAW))
    by_name = {image.name: image for image in registry.changes(since=0).images}
    data_file(store, by_name["lost"]).unlink()
    with data_file(store, by_name["short"]).open("r+b") as file:
        file.truncate(SIZE - 1)
    with data_file(store, by_name["flipped"]).open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"\1")
    moved = by_name["sound"]
    elsewhere = replace(moved, id="", name="elsewhere", location=Location(store="swift", key="0" * 32))
    registry.add(elsewhere)


def test_each_kind_of_damage_is_found_and_the_sound_are_not_named(
    images: Images, registry: SqlRegistry, store: FileStore
) -> None:
    damage_everything(images, registry, store)
    assert found(registry, store) == {
        "lost": Damage.MISSING,
        "short": Damage.SIZE,
        "flipped": Damage.CHECKSUM,
        "elsewhere": Damage.UNREADABLE,
    }


def test_a_quick_look_sees_presence_and_size(images: Images, registry: SqlRegistry, store: FileStore) -> None:
    damage_everything(images, registry, store)
    assert found(registry, store, quick=True) == {
        "lost": Damage.MISSING,
        "short": Damage.SIZE,
        "elsewhere": Damage.UNREADABLE,
    }


def test_findings_come_in_the_order_of_the_images_and_say_what_is_wrong(
    images: Images, registry: SqlRegistry, store: FileStore
) -> None:
    for number in range(12):
        image = add(images, f"image {number}", size=1000 * (12 - number))
        with data_file(store, image).open("ab") as file:
            file.write(b"!")
    findings = list(audit(registry=registry, stores={"file": store}))
    assert [finding.image_name for finding in findings] == [f"image {number}" for number in range(12)]
    assert findings[0].sentence == "There are 12001 bytes of data instead of 12000."
    assert findings[0].image_id == "1"


@pytest.mark.parametrize("quick", [True, False])
def test_progress_is_told_up_to_the_last_byte(
    images: Images, registry: SqlRegistry, store: FileStore, *, quick: bool
) -> None:
    damage_everything(images, registry, store)
    told: list[tuple[int, int]] = []
    findings = audit(
        registry=registry,
        stores={"file": store},
        quick=quick,
        progress=lambda done, total, _: told.append((done, total)),
    )
    assert len(list(findings)) == (3 if quick else 4)
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert told[-1] == (5 * SIZE, 5 * SIZE)


def test_an_image_deleted_meanwhile_is_no_finding(images: Images, registry: SqlRegistry, store: FileStore) -> None:
    image = add(images, "going")
    broken = add(images, "broken", size=10)
    data_file(store, broken).unlink()
    data_file(store, image).write_bytes(b"wrong")

    def delete(done: int, total: int, at: Image) -> None:
        if at.id == image.id:
            images.delete(ALICE, image.id)

    findings = audit(registry=registry, stores={"file": store}, progress=delete)
    assert [finding.image_name for finding in findings] == ["broken"]


def test_an_audit_that_is_left_early_ends_its_threads(images: Images, registry: SqlRegistry, store: FileStore) -> None:
    for number in range(20):
        data_file(store, add(images, f"image {number}", size=100_000)).unlink()
    findings = audit(registry=registry, stores={"file": store})
    assert next(iter(findings)).what is Damage.MISSING
    del findings
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("audit")]


def test_data_that_can_not_be_read_are_a_finding(images: Images, registry: SqlRegistry, store: FileStore) -> None:
    class BadBlock(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object, /) -> int:
            raise OSError(errno.EIO, "Input/output error")

    class Failing(FileStore):
        def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
            return cast("BinaryIO", BadBlock())

    image = add(images, "on a bad block")
    failing = Failing(path=store.staging_folder.parent)
    findings = list(audit(registry=registry, stores={"file": failing}))
    assert [(finding.image_id, finding.what) for finding in findings] == [(image.id, Damage.UNREADABLE)]
    assert "Input/output error" in findings[0].sentence
