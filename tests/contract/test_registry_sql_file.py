# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.registries.sql` promises when its file is taken away under it, and when its disk is full.

Threading: none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from glancefs.errors import RegistryUnavailable, StoreFull
from glancefs.model import ImageStatus
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_model import NOON, an_available_image, an_image
from tests.support.databases import sqlite
from tests.support.mounts import mounted

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, kind="tmpfs", size=8 * MIB) as place:
        yield place


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(url=registry_url(tmp_path), migrate=True)) as registry:
        yield registry


def fill(place: Path) -> Path:
    """Leave no byte of room."""
    filling = place / "filling"
    with filling.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return filling


def test_nothing_is_confirmed_by_a_database_that_was_removed(registry: SqlRegistry, tmp_path: Path) -> None:
    registry.add(an_image(id="a"))
    path = sqlite(registry).path
    path.rename(tmp_path / "away")
    for use in (lambda: registry.add(an_image()), lambda: registry.get("a"), registry.revision):
        with pytest.raises(RegistryUnavailable, match="was removed while it was in use"):
            use()
    assert not path.exists()
    (tmp_path / "away").rename(path)
    registry.add(an_image(id="b"))
    assert {registry.get(image_id).id for image_id in "ab"} == {"a", "b"}


def test_nothing_is_confirmed_by_a_database_that_was_replaced(registry: SqlRegistry, tmp_path: Path) -> None:
    registry.add(an_image(id="a"))
    with closing(SqlRegistry(url=registry_url(tmp_path / "other"), migrate=True)) as other:
        other.add(an_image(id="theirs"))
    shutil.move(tmp_path / "other" / "registry.sqlite", sqlite(registry).path)
    for image_id in ("a", "theirs"):
        with pytest.raises(RegistryUnavailable, match="was replaced"):
            registry.get(image_id)
    with pytest.raises(RegistryUnavailable, match="was replaced"):
        registry.add(an_image())


@pytest.mark.needs("root")
def test_images_can_be_deleted_when_the_disk_is_full(small_disk: Path) -> None:
    with closing(SqlRegistry(url=registry_url(small_disk), migrate=True)) as registry:
        added = [registry.add(an_available_image(id=f"image-{number}")) for number in range(10)]
        filling = fill(small_disk)
        with pytest.raises(StoreFull):
            registry.add(an_image())
        for image in added[:5]:
            registry.delete(image.id, expected_revision=image.revision, deleted_at=NOON)
            assert registry.get(image.id).status is ImageStatus.DELETED
        filling.unlink()
        registry.delete(added[5].id, expected_revision=added[5].revision, deleted_at=NOON)
        fill(small_disk)
        for image in added[6:]:
            registry.delete(image.id, expected_revision=image.revision, deleted_at=NOON)
        assert list(registry.integrity_check()) == []
    with closing(SqlRegistry(url=registry_url(small_disk))) as again:
        assert {again.get(image.id).status for image in added} == {ImageStatus.DELETED}
