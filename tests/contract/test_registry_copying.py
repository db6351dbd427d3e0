# SPDX-License-Identifier: Apache-2.0
"""What copying a registry to another database promises: everything comes along, or nothing does.

Threading: none.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from glancefs.errors import ConfigError
from glancefs.registries import copying
from glancefs.registries.base import ImageQuery, SortKey
from glancefs.registries.copying import copy_registry
from glancefs.registries.folders import Folder
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_model import NOON, an_available_image, an_image
from tests.support.databases import server
from tests.support.many_images import various_images

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.needs("mariadb")]
ALL = ImageQuery(sees_all=True, is_public=None, limit=10_000)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_AT_ONCE", 50)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a registry with something of everything."""
    url = registry_url(tmp_path_factory.mktemp("filled"))
    with closing(SqlRegistry(url=url, migrate=True)) as registry:
        for image in various_images(200):
            registry.add(image)
        for name in ("nul\0", "\1", "a/b/c", "\N{GRINNING FACE}" * 1024, "blank ", "Blank ", "e\u0301"):
            registry.add(an_image(name=name, owner=name[:255], properties={"key": "x" * 70_000, "nul": "\0"}))
        registry.folders.add_folder(Folder(path="made", owner="ann", created_at=NOON, mtime_ns=5))
        registry.folders.add_folder(Folder(path="gone", owner="ann", created_at=NOON))
        gone = registry.add(an_available_image())
        registry.delete(gone.id, expected_revision=gone.revision, deleted_at=NOON + timedelta(hours=1))
    return url


def contents(url: str) -> list[object]:
    """Give everything that a registry tells."""
    with closing(SqlRegistry(url=url)) as registry:
        return [
            registry.identity(),
            registry.changes(since=0, limit=10_000),
            list(registry.holdings()),
            [image.id for image in registry.find(replace(ALL, sort_key=SortKey.NAME))],
            [image.id for image in registry.find(replace(ALL, properties={"os": "linux"}))],
            list(registry.integrity_check()),
        ]


def nothing(_table: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def test_everything_comes_along_from_each_to_the_next(filled: str, tmp_path: Path) -> None:
    expected = contents(filled)
    with closing(SqlRegistry(url=filled)) as registry:
        images = len(registry.changes(since=0).images)
    here = filled
    for there in (server("postgresql").fresh(), server("mariadb").fresh(), registry_url(tmp_path / "again")):
        copied = copy_registry(here, there, progress=nothing)
        assert contents(there) == expected
        assert copied.images == images
        here = there
    with closing(SqlRegistry(url=here)) as last:
        added = last.add(an_image())
        assert added.revision == last.revision() > images


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_copy_that_was_cut_off_left_nothing_and_is_begun_again(filled: str, kind: str) -> None:
    there = server(kind).fresh()

    def fails(table: str, done: int, _total: int) -> None:
        if table == "images" and done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_registry(filled, there, progress=fails)
    with closing(SqlRegistry(url=there)) as registry:
        assert registry.revision() == 0
        assert list(registry.find(ALL)) == []
    copy_registry(filled, there, progress=nothing)
    assert contents(there) == contents(filled)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_registry_that_is_used_is_not_copied_to(filled: str, kind: str) -> None:
    there = server(kind).take()
    with closing(SqlRegistry(url=there)) as registry:
        registry.add(an_image(name="theirs"))
    with pytest.raises(ConfigError, match="in use"):
        copy_registry(filled, there, progress=nothing)
    with pytest.raises(ConfigError, match="to itself"):
        copy_registry(there, there, progress=nothing)
    with closing(SqlRegistry(url=there)) as registry:
        assert [image.name for image in registry.find(ALL)] == ["theirs"]


def test_what_is_not_there_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no registry"):
        copy_registry(registry_url(tmp_path / "none"), registry_url(tmp_path / "new"), progress=nothing)
    assert not (tmp_path / "new").exists()
