# SPDX-License-Identifier: Apache-2.0
"""The use cases over a real registry and a store in memory: rules, order of effects, verification.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from glancefs.context import ANONYMOUS, RequestContext
from glancefs.errors import (
    ChecksumMismatch,
    Conflict,
    DataMissing,
    Duplicate,
    Forbidden,
    GlancefsError,
    ImageNotFound,
    ImmutableImage,
    InvalidQuery,
    NotAuthenticated,
    ProtectedImage,
    SizeMismatch,
    StaleImage,
    UnsupportedStore,
    UploadTooLarge,
    UploadTruncated,
    WrongStatus,
)
from glancefs.images import Images
from glancefs.model import Image, ImageChanges, ImageStatus, ImageType, NewImage
from glancefs.registries.base import ImageQuery
from glancefs.registries.sql import SqlRegistry
from glancefs.stores.memory import MemoryStore

ALICE = RequestContext(user="alice")
BOB = RequestContext(user="bob")
ADMIN = RequestContext(user="root", is_admin=True)
DATA = b"a virtual machine"
CHECKSUM = "sha256:" + hashlib.sha256(DATA).hexdigest()


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Cut:
    """A source whose client vanishes after some bytes, having run something meanwhile."""

    def __init__(self, given: bytes, *, meanwhile: Callable[[], object] = lambda: None, cut: bool = True) -> None:
        self._given = io.BytesIO(given)
        self._meanwhile = meanwhile
        self._cut = cut

    def readinto(self, buffer: memoryview, /) -> int:
        if count := self._given.readinto(buffer):
            return count
        self._meanwhile()
        if self._cut:
            raise UploadTruncated("The client went away.")
        return 0


class NeverRead:
    def readinto(self, buffer: memoryview, /) -> int:
        raise AssertionError("the data were asked for")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    registry = SqlRegistry(url=f"sqlite:///{tmp_path / 'registry.sqlite'}", migrate=True)
    yield registry
    registry.close()


@pytest.fixture
def make(registry: SqlRegistry, store: MemoryStore, clock: Clock) -> Callable[..., Images]:
    def made(**options: Any) -> Images:
        parts: dict[str, Any] = {
            "registry": registry,
            "stores": {store.scheme: store},
            "default_store": store.scheme,
            "clock": clock,
        }
        return Images(**parts | options)

    return made


@pytest.fixture
def images(make: Callable[..., Images]) -> Images:
    return make()


def new(**said: Any) -> NewImage:
    return NewImage(**({"name": "debian", "type": ImageType.MACHINE} | said))


def kept(registry: SqlRegistry, store: MemoryStore) -> int:
    """How many data no row names."""
    return store.sweep(registry.named_locations).orphans


def names(found: Iterator[Image]) -> list[str]:
    return sorted(image.name for image in found)


def test_an_added_image_is_available_and_private_and_reads_back(images: Images) -> None:
    image = images.add(ALICE, new(properties={"Distro-Name": "x"}), io.BytesIO(DATA), size=len(DATA))
    assert (image.id, image.status, image.size, image.checksum) == ("1", ImageStatus.AVAILABLE, len(DATA), CHECKSUM)
    assert (image.owner, image.is_public, image.properties) == ("alice", False, {"distro_name": "x"})
    assert image.created_at == image.updated_at
    assert images.get(ALICE, "1") == image
    with images.open(ALICE, "1") as reader:
        assert reader.read_at(2, 7) == b"virtual"
        assert b"".join(reader.iter(chunk_size=5)) == DATA
        assert reader.read_at(len(DATA) - 1, 100) == DATA[-1:]
        assert reader.read_at(len(DATA), 1) == b""


def test_another_users_private_image_does_not_exist_for_you(images: Images) -> None:
    images.add(ALICE, new(), io.BytesIO(DATA))
    for stranger in (BOB, ANONYMOUS):
        with pytest.raises(ImageNotFound):
            images.get(stranger, "1")
        with pytest.raises(ImageNotFound):
            images.open(stranger, "1")
        assert not list(images.find_all(stranger, ImageQuery(is_public=None)))
    with pytest.raises(ImageNotFound):
        images.update(BOB, "1", ImageChanges(name="mine"))
    with pytest.raises(ImageNotFound):
        images.delete(BOB, "1")
    assert images.get(ADMIN, "1").owner == "alice"


def test_a_public_image_is_everybodys_to_read_and_its_owners_to_change(images: Images) -> None:
    images.add(ALICE, new(is_public=True), io.BytesIO(DATA))
    assert images.open(ANONYMOUS, "1").read_at(0, 100) == DATA
    with pytest.raises(Forbidden):
        images.update(BOB, "1", ImageChanges(name="mine"))
    with pytest.raises(Forbidden):
        images.delete(BOB, "1")
    for change in (lambda: images.delete(ANONYMOUS, "1"), lambda: images.create(ANONYMOUS, new())):
        with pytest.raises(NotAuthenticated):
            change()
    assert images.update(ADMIN, "1", ImageChanges(owner="bob")).owner == "bob"
    assert images.update(BOB, "1", ImageChanges(name="mine")).name == "mine"


def test_only_an_admin_adds_for_others_or_gives_away(images: Images) -> None:
    with pytest.raises(Forbidden):
        images.create(BOB, new(owner="alice"))
    assert images.create(ADMIN, new(owner="alice")).owner == "alice"
    with pytest.raises(Forbidden):
        images.update(ALICE, "1", ImageChanges(owner="bob"))


def test_a_queued_image_is_seen_by_its_owner_alone_even_when_public(images: Images) -> None:
    images.create(ALICE, new(is_public=True))
    with pytest.raises(ImageNotFound):
        images.get(BOB, "1")
    assert names(images.find_all(ALICE, ImageQuery())) == ["debian"]
    assert names(images.find_all(BOB, ImageQuery())) == []
    with pytest.raises(ImageNotFound, match="queued"):
        images.open(ALICE, "1")


def test_everything_that_can_be_refused_is_refused_before_the_data(make: Callable[..., Images]) -> None:
    images = make(max_upload=10)
    images.create(ALICE, new(id="taken"))
    cases: list[tuple[type[GlancefsError], Callable[[], object]]] = [
        (NotAuthenticated, lambda: images.add(ANONYMOUS, new(), NeverRead())),
        (Forbidden, lambda: images.add(BOB, new(owner="alice"), NeverRead())),
        (UnsupportedStore, lambda: images.add(ALICE, new(store="tape"), NeverRead())),
        (Duplicate, lambda: images.add(BOB, new(id="taken"), NeverRead())),
        (SizeMismatch, lambda: images.add(ALICE, new(size=3), NeverRead(), size=4)),
        (UploadTooLarge, lambda: images.add(ALICE, new(), NeverRead(), size=11)),
        (ImageNotFound, lambda: images.upload(BOB, "taken", NeverRead())),
    ]
    for error, refused in cases:
        with pytest.raises(error):
            refused()


def test_a_failed_upload_leaves_nothing(images: Images, registry: SqlRegistry, store: MemoryStore) -> None:
    cases: list[tuple[type[GlancefsError], Callable[[], object]]] = [
        (SizeMismatch, lambda: images.add(ALICE, new(size=99), io.BytesIO(DATA))),
        (SizeMismatch, lambda: images.add(ALICE, new(size=3), io.BytesIO(DATA))),
        (ChecksumMismatch, lambda: images.add(ALICE, new(checksum="sha256:" + "0" * 64), io.BytesIO(DATA))),
        (UploadTruncated, lambda: images.add(ALICE, new(), Cut(DATA))),
    ]
    for error, refused in cases:
        with pytest.raises(error):
            refused()
        assert registry.revision() == 0
        assert kept(registry, store) == 0


def test_an_id_lost_to_another_upload_leaves_no_data(images: Images, registry: SqlRegistry, store: MemoryStore) -> None:
    late = Cut(DATA, meanwhile=lambda: images.create(BOB, new(id="x")), cut=False)
    with pytest.raises(Duplicate):
        images.add(ALICE, new(id="x"), late)
    assert images.get(BOB, "x").status is ImageStatus.QUEUED
    assert kept(registry, store) == 0


def test_a_queued_image_takes_its_data_once(images: Images) -> None:
    queued = images.create(ALICE, new(checksum=CHECKSUM))
    done = images.upload(ALICE, queued.id, io.BytesIO(DATA), changes=ImageChanges(name="done"))
    assert (done.status, done.size, done.checksum, done.name) == (ImageStatus.AVAILABLE, len(DATA), CHECKSUM, "done")
    with pytest.raises(ImmutableImage):
        images.upload(ALICE, queued.id, NeverRead())
    assert images.open(ALICE, queued.id).read_at(0, 100) == DATA


def test_while_data_come_the_image_is_saving_and_takes_no_others(images: Images) -> None:
    seen: list[object] = []

    def meanwhile() -> None:
        seen.append(images.get(ALICE, "1").status)
        with pytest.raises(WrongStatus):
            images.upload(ALICE, "1", NeverRead())
        seen.append(images.update(ALICE, "1", ImageChanges(name="renamed")).name)

    images.create(ALICE, new())
    done = images.upload(ALICE, "1", Cut(DATA, meanwhile=meanwhile, cut=False))
    assert seen == [ImageStatus.SAVING, "renamed"]
    assert (done.name, done.status) == ("renamed", ImageStatus.AVAILABLE)


def test_a_failed_upload_leaves_the_image_queued_and_as_it_was(
    images: Images, registry: SqlRegistry, store: MemoryStore
) -> None:
    before = images.create(ALICE, new(size=99))
    with pytest.raises(SizeMismatch):
        images.upload(ALICE, "1", io.BytesIO(DATA), changes=ImageChanges(name="new"))
    with pytest.raises(UploadTruncated):
        images.upload(ALICE, "1", Cut(DATA), changes=ImageChanges(name="new"))
    after = images.get(ALICE, "1")
    assert (after.status, after.name, after.size, after.location) == (before.status, "debian", 99, None)
    assert kept(registry, store) == 0


def test_an_image_deleted_while_its_data_come_stays_deleted(
    images: Images, registry: SqlRegistry, store: MemoryStore
) -> None:
    images.create(ALICE, new())
    with pytest.raises(ImageNotFound):
        images.upload(ALICE, "1", Cut(DATA, meanwhile=lambda: images.delete(ALICE, "1"), cut=False))
    assert registry.get("1").status is ImageStatus.DELETED
    assert kept(registry, store) == 0


def test_a_change_moves_updated_at_and_no_change_moves_nothing(images: Images, clock: Clock) -> None:
    image = images.add(ALICE, new(), io.BytesIO(DATA))
    clock.now += timedelta(minutes=1)
    assert images.update(ALICE, "1", ImageChanges(name="debian")) == image
    changed = images.update(ALICE, "1", ImageChanges(properties={"A": "1"}))
    assert (changed.updated_at, changed.created_at) == (clock.now, image.created_at)
    clock.now -= timedelta(days=1)
    assert images.update(ALICE, "1", ImageChanges(name="x")).updated_at == image.created_at


def test_an_upload_into_a_queued_image_does_not_move_updated_at(images: Images, clock: Clock) -> None:
    queued = images.create(ALICE, new())
    clock.now += timedelta(minutes=1)
    assert images.upload(ALICE, "1", io.BytesIO(DATA)).updated_at == queued.updated_at


def test_a_protected_image_is_not_deleted_until_it_is_unprotected(images: Images) -> None:
    images.add(ALICE, new(protected=True), io.BytesIO(DATA))
    with pytest.raises(ProtectedImage):
        images.delete(ALICE, "1")
    images.update(ALICE, "1", ImageChanges(protected=False))
    images.delete(ALICE, "1")
    with pytest.raises(ImageNotFound):
        images.delete(ALICE, "1")


def test_whoever_reads_a_deleted_image_goes_on_reading(images: Images, registry: SqlRegistry) -> None:
    images.add(ALICE, new(), io.BytesIO(DATA))
    with images.open(ALICE, "1") as reader:
        first = reader.read_at(0, 1)
        images.delete(ALICE, "1")
        assert first + reader.read_at(1, 100) == DATA
    assert registry.get("1").location is None
    with pytest.raises(Duplicate):
        images.create(ALICE, new(id="1"))


def test_a_change_of_a_known_revision_is_refused_when_there_is_a_later_one(images: Images) -> None:
    old = images.add(ALICE, new(), io.BytesIO(DATA))
    images.update(ALICE, "1", ImageChanges(name="x"))
    with pytest.raises(StaleImage):
        images.update(ALICE, "1", ImageChanges(name="y"), expected_revision=old.revision)
    with pytest.raises(StaleImage):
        images.delete(ALICE, "1", expected_revision=old.revision)


def test_lost_data_are_damage_and_not_an_unknown_image(images: Images, store: MemoryStore) -> None:
    image = images.add(ALICE, new(), io.BytesIO(DATA))
    assert image.location is not None
    store.delete(image.location)
    with pytest.raises(DataMissing):
        images.open(ALICE, "1")


def test_lists_show_public_private_or_all_that_is_yours_to_see(images: Images) -> None:
    for owner, name, is_public in ((ALICE, "ap", True), (ALICE, "as", False), (BOB, "bp", True), (BOB, "bs", False)):
        images.add(owner, new(name=name, is_public=is_public), io.BytesIO(DATA))
    assert names(images.find_all(ANONYMOUS, ImageQuery())) == ["ap", "bp"]
    assert names(images.find_all(ALICE, ImageQuery(is_public=False))) == ["as"]
    assert names(images.find_all(ALICE, ImageQuery(is_public=None), page_size=1)) == ["ap", "as", "bp"]
    assert names(images.find_all(ADMIN, ImageQuery(is_public=None), page_size=2)) == ["ap", "as", "bp", "bs"]
    with pytest.raises(InvalidQuery):
        images.find(ALICE, ImageQuery(marker="4"))


def test_a_list_goes_on_where_an_image_of_it_became_invisible(images: Images) -> None:
    for name in "abcd":
        images.add(ALICE, NewImage(name=name, type=ImageType.RAW, is_public=True), io.BytesIO(DATA))
    walk = images.find_all(BOB, ImageQuery(), page_size=1)
    seen = []
    for image in walk:
        seen.append(image.name)
        if image.name == "c":
            images.update(ALICE, image.id, ImageChanges(is_public=False))
        elif image.name == "b":
            images.delete(ALICE, image.id)
    assert seen == ["d", "c", "b", "a"]


def test_of_many_changes_at_once_none_is_lost(images: Images) -> None:
    images.add(ALICE, new(), io.BytesIO(DATA))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: images.update(ALICE, "1", ImageChanges(properties={f"k{n}": "v"})), range(8)))
    assert len(images.get(ALICE, "1").properties) == 8


def test_of_many_uploads_into_one_image_exactly_one_wins(images: Images) -> None:
    images.create(ALICE, new())
    together = threading.Barrier(8)

    def upload(n: int) -> str:
        together.wait()
        try:
            return images.upload(ALICE, "1", io.BytesIO(b"%d" % n)).checksum or ""
        except Conflict:
            return "lost"

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(upload, range(8)))
    assert outcomes.count("lost") == 7
    assert images.get(ALICE, "1").checksum in outcomes


def test_generated_ids_may_be_uuids(make: Callable[..., Images]) -> None:
    assert len(make(image_ids="uuid").create(ALICE, new()).id) == 36


def test_the_configuration_may_make_images_public_by_default(make: Callable[..., Images]) -> None:
    images = make(default_is_public=True)
    assert images.create(ALICE, new()).is_public
    assert not images.create(ALICE, new(is_public=False)).is_public
