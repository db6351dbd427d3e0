# SPDX-License-Identifier: Apache-2.0
"""Moving the data of images between stores: `glancefs.relocation`, over a real registry, a folder and memory.

Threading: some tests read from another thread while data move.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from glancefs.context import ANONYMOUS, RequestContext
from glancefs.errors import (
    ChecksumMismatch,
    Forbidden,
    ImageNotFound,
    NotAuthenticated,
    StoreFull,
    UnsupportedStore,
    WrongStatus,
)
from glancefs.images import Images
from glancefs.model import Image, ImageChanges, ImageType, Location, NewImage
from glancefs.registries.sql import SqlRegistry
from glancefs.relocation import Relocation
from glancefs.stores.base import Store, Swept
from glancefs.stores.file import FileStore
from glancefs.stores.memory import MemoryStore
from glancefs.sweep import sweep

ALICE = RequestContext(user="alice", is_admin=False)
ADMIN = RequestContext(user="root", is_admin=True)
DATA = bytes(range(256)) * 10_000
LATER = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)


class Node:
    """A registry, its stores and what works on them."""

    def __init__(self, folder: Path) -> None:
        self.registry = SqlRegistry(url=f"sqlite:///{folder / 'registry.sqlite'}", migrate=True)
        self.file = FileStore(path=folder / "images")
        self.memory = MemoryStore()
        self.stores: dict[str, Store] = {"file": self.file, "memory": self.memory, "small": MemoryStore(capacity=10)}
        self.images = Images(registry=self.registry, stores=self.stores, default_store="file")
        self.relocation = Relocation(registry=self.registry, stores=self.stores, clock=lambda: LATER)

    def add(self, **fields: object) -> Image:
        new = NewImage(name="disk", type=ImageType.RAW, **fields)  # type: ignore[arg-type]  # the fields are those of NewImage
        return self.images.add(ALICE, new, io.BytesIO(DATA))

    def read(self, image: Image) -> bytes:
        with self.images.open_image(image) as reader:
            return b"".join(reader.iter())

    def swept(self) -> Swept:
        return sweep(registry=self.registry, stores=self.stores)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.registry.close()


def test_data_move_and_nothing_stays_behind(node: Node) -> None:
    image = node.add(properties={"os": "debian"}, protected=True)
    told: list[int] = []
    moved = node.relocation.move(ADMIN, image.id, to="memory", progress=told.append)
    assert (moved.store, moved.location.store if moved.location else "") == ("memory", "memory")
    assert (moved.checksum, moved.size, moved.properties) == (image.checksum, image.size, image.properties)
    assert moved.updated_at == LATER
    assert node.registry.get(image.id) == moved
    assert node.read(moved) == DATA
    assert sum(told) == 2 * len(DATA)
    assert node.swept() == Swept()
    assert node.relocation.move(ADMIN, image.id, to="memory") == moved
    assert node.read(node.relocation.move(ADMIN, image.id, to="file")) == DATA
    assert node.swept() == Swept()


def test_readers_do_not_notice(node: Node) -> None:
    image = node.relocation.move(ADMIN, node.add().id, to="memory")
    with node.images.open_image(image) as reader:
        head = reader.read_at(0, 1000)
        node.relocation.move(ADMIN, image.id, to="file")
        assert head + reader.read_at(1000, len(DATA)) == DATA
    # Whoever looked at the row before, and opens the data now.
    assert node.read(image) == DATA


class Meanwhile(MemoryStore):
    """A store during whose reading back something happens."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__(scheme="busy")
        self.do = do

    def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
        self.do()
        return super().open(location, start, stop)


def test_what_is_changed_meanwhile_stays_changed(node: Node) -> None:
    image = node.add()
    busy = Meanwhile(lambda: node.images.update(ALICE, image.id, ImageChanges(name="renamed")))
    node.stores["busy"] = busy
    moved = node.relocation.move(ADMIN, image.id, to="busy")
    assert (moved.name, moved.store) == ("renamed", "busy")
    assert node.read(moved) == DATA


def test_what_is_deleted_meanwhile_stays_deleted(node: Node) -> None:
    image = node.add()
    node.stores["busy"] = Meanwhile(lambda: node.images.delete(ALICE, image.id))
    with pytest.raises(ImageNotFound):
        node.relocation.move(ADMIN, image.id, to="busy")
    assert node.swept() == Swept()


def test_of_two_at_once_one_moves(node: Node) -> None:
    image = node.add()
    node.stores["busy"] = Meanwhile(lambda: node.relocation.move(ADMIN, image.id, to="memory"))
    with pytest.raises(WrongStatus, match="was moved by somebody else meanwhile"):
        node.relocation.move(ADMIN, image.id, to="busy")
    assert node.registry.get(image.id).store == "memory"
    assert node.swept() == Swept()


def test_damaged_data_are_not_moved_and_stay_where_they_are(node: Node, tmp_path: Path) -> None:
    image = node.add()
    assert image.location is not None
    place = tmp_path / "images" / image.location.key[:2] / image.location.key
    place.write_bytes(b"x" + DATA[1:])
    with pytest.raises(ChecksumMismatch):
        node.relocation.move(ADMIN, image.id, to="memory")
    assert node.registry.get(image.id) == image
    assert place.exists()
    assert node.swept() == Swept()


def test_only_an_admin_says_where_data_are(node: Node) -> None:
    image = node.add()
    with pytest.raises(NotAuthenticated, match="log in"):
        node.relocation.move(ANONYMOUS, image.id, to="memory")
    with pytest.raises(Forbidden, match="Only an admin"):
        node.relocation.move(ALICE, image.id, to="memory")
    assert node.registry.get(image.id) == image


def test_what_is_told_of_progress_may_end_it(node: Node) -> None:
    image = node.add()

    class EnoughError(Exception):
        pass

    def enough(_: int) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        node.relocation.move(ADMIN, image.id, to="memory", progress=enough)
    assert node.registry.get(image.id) == image
    assert node.swept() == Swept()
    assert node.read(node.relocation.move(ADMIN, image.id, to="memory")) == DATA


def test_what_cannot_be_moved_is_refused_in_words(node: Node) -> None:
    image = node.add()
    with pytest.raises(UnsupportedStore, match=r"no store 'tape' here; there are file, memory, small\."):
        node.relocation.move(ADMIN, image.id, to="tape")
    with pytest.raises(ImageNotFound):
        node.relocation.move(ADMIN, "none", to="memory")
    queued = node.images.create(ALICE, NewImage(name="queued", type=ImageType.RAW))
    with pytest.raises(WrongStatus, match="has no data to move: its status is queued"):
        node.relocation.move(ADMIN, queued.id, to="memory")
    with pytest.raises(StoreFull):
        node.relocation.move(ADMIN, image.id, to="small")
    assert node.read(image) == DATA
    assert node.swept() == Swept()
