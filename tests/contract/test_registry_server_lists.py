# SPDX-License-Identifier: Apache-2.0
"""What lists and the tree cost on PostgreSQL and MariaDB, as the servers count it: what is shown, and little more.

Threading: none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from glancefs.model import ImageType
from glancefs.registries import lists
from glancefs.registries.base import SortDirection, SortKey
from glancefs.registries.copying import copy_registry
from glancefs.registries.folders import View
from glancefs.registries.schema import SORTED_BY
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_model import an_available_image
from tests.contract.test_registry_sql_lists import CALLERS
from tests.support.databases import rows_read, server
from tests.support.many_images import FEW_OWNER, HALF_OWNER, fill, various_images

IMAGES = 6000
LIMIT = 10
RANGES = 8
MANY = 400
"""Images of one folder, and folders of another."""

LONG_AGO = datetime(2021, 1, 1, tzinfo=UTC)
KINDS = [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in ("postgresql", "mariadb")]
COMMON: dict[str, dict[str, Any]] = {
    "a type": {"type": ImageType.KERNEL},
    "a property": {"properties": {"os": "linux"}},
    "most sizes": {"size_min": 10},
    "a time long ago": {"changed_since": datetime(2020, 1, 1, tzinfo=UTC)},
}
RARE: dict[str, dict[str, Any]] = {
    "a name": {"name": "web-1"},
    "a size": {"size_min": 5, "size_max": 10},
    "a property": {"properties": {"os": "linux", "serial": "4"}},
    "a time just now": {"changed_since": datetime(2030, 1, 1, tzinfo=UTC)},
}


@pytest.fixture(scope="module", params=KINDS)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlRegistry]:
    folder = tmp_path_factory.mktemp("lists")
    here, there = registry_url(folder), server(request.param).fresh()
    SqlRegistry(url=here, migrate=True).close()
    fill(folder / "registry.sqlite", [*various_images(IMAGES), *tree()])
    copy_registry(here, there, progress=lambda *_: None)
    with closing(SqlRegistry(url=there, connections=1)) as registry:
        yield registry


@pytest.fixture(autouse=True)
def statements_are_built_anew(registry: SqlRegistry) -> None:
    """Let each test say what few images are."""
    registry._lists._statements.clear()


def tree() -> Iterator[Any]:
    for number in range(MANY):
        for name in (f"full/{number:04}", f"wide/{number:04}/a", f"wide/{number:04}/b", "same"):
            image_id = f"{name.replace('/', '-')}-{number}"
            # Older than the others, so that no list meets them first.
            yield an_available_image(id=image_id, name=name, owner=HALF_OWNER, created_at=LONG_AGO, updated_at=LONG_AGO)


@pytest.mark.parametrize("caller", CALLERS)
def test_pages_are_read_off_indexes(registry: SqlRegistry, caller: str) -> None:
    for sort_key, direction, marker in itertools.product(SORTED_BY, SortDirection, [None, "400"]):
        query = replace(
            CALLERS[caller], sort_key=SortKey(sort_key), sort_direction=direction, marker=marker, limit=LIMIT
        )
        with rows_read(registry) as meter:
            assert len(registry.find(query)) == LIMIT or caller == "owner of few"
        assert meter.rows <= RANGES * (3 * LIMIT + 3), meter.plans


@pytest.mark.parametrize("caller", ["stranger", "owner", "admin"])
@pytest.mark.parametrize("filters", COMMON)
def test_a_common_filter_thins_out_what_is_walked(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch, caller: str, filters: str
) -> None:
    # Even of these images there are few in some ranges, which are sorted then.
    monkeypatch.setattr(lists, "_FEW", 0)
    query = replace(CALLERS[caller], **COMMON[filters], limit=LIMIT)
    with rows_read(registry) as meter:
        assert len(registry.find(query)) == LIMIT
    # A range that has none of what is wanted is walked to its end, and some of these are small enough for that.
    assert meter.rows <= IMAGES / 2, meter.plans


@pytest.mark.parametrize("filters", RARE)
def test_a_rare_filter_leads(registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch, filters: str) -> None:
    monkeypatch.setattr(lists, "_FEW", 100)
    with rows_read(registry) as meter:
        registry.find(replace(CALLERS["owner"], **RARE[filters], limit=LIMIT))
    assert meter.rows <= 1000, meter.plans


def test_walking_and_looking_up_find_the_same(registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = [CALLERS[caller] for caller in ("stranger", "owner", "admin")]
    queries = [
        replace(caller, **filters, sort_key=key, limit=30)
        for caller, filters, key in itertools.product(
            callers, [*RARE.values(), *COMMON.values()], (SortKey.CREATED_AT, SortKey.NAME, SortKey.TYPE)
        )
    ]
    looked_up = [registry.find(query) for query in queries]
    monkeypatch.setattr(lists, "_FEW", 0)
    registry._lists._statements.clear()
    assert [registry.find(query) for query in queries] == looked_up


@pytest.mark.parametrize(
    "view",
    [View(viewer=HALF_OWNER), View(viewer="root", sees_all=True), View(viewer=FEW_OWNER), View()],
    ids=["owner", "admin", "other", "nobody"],
)
def test_looking_into_the_tree_reads_what_it_shows(registry: SqlRegistry, view: View) -> None:
    folders = registry.folders
    with rows_read(registry) as meter:
        page = folders.images_in("full", view, limit=LIMIT)
        if page.marker is not None:
            folders.images_in("full", view, after=page.marker, limit=LIMIT)
        folders.folder("", view)
        folders.first_named("full/0007", view)
        folders.at("wide/0007", view)
        folders.first_named("same", view)
        folders.first_of_their_names([image.id for image in page.images], view)
    assert meter.rows <= 40 * RANGES * LIMIT, meter.plans
    with rows_read(registry) as meter:
        found = folders.folders_in("wide", view, limit=LIMIT)
    assert len(found) == (0 if view.viewer in {None, FEW_OWNER} else LIMIT)
    assert meter.rows <= RANGES * 3 * 64, meter.plans
    assert meter.statements <= 2 * RANGES
