# SPDX-License-Identifier: Apache-2.0
"""What lists of `glancefs.registries.sql` cost on SQLite, as its own plans tell: never a scan, never a sort.

Threading: none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from glancefs.model import ImageStatus, ImageType
from glancefs.registries import lists
from glancefs.registries.base import ImageQuery, SortDirection, SortKey
from glancefs.registries.lists import Lists
from glancefs.registries.schema import SORTED_BY
from glancefs.registries.sql import SqlRegistry, registry_url
from glancefs.registries.sqlite import SqliteDatabase
from tests.contract.registry_lists import ListsMachine
from tests.support.many_images import FEW_OWNER, HALF_OWNER, fill, various_images

IMAGES = 20_000
CALLERS = {
    "stranger": ImageQuery(),
    "stranger who asks for all": ImageQuery(is_public=None),
    "owner": ImageQuery(viewer=HALF_OWNER, is_public=None),
    "owner of few": ImageQuery(viewer=FEW_OWNER, is_public=None),
    "owner of private ones": ImageQuery(viewer=HALF_OWNER, is_public=False),
    "admin": ImageQuery(sees_all=True, is_public=None),
    "admin who asks for one owner's": ImageQuery(sees_all=True, is_public=None, owner=HALF_OWNER),
}
WALKED: dict[str, dict[str, Any]] = {
    "a type": {"type": ImageType.KERNEL},
    "a format": {"disk_format": "iso", "container_format": "bare"},
    "the unfinished": {"status": ImageStatus.QUEUED},
    "a common property": {"properties": {"os": "linux"}},
    "most sizes": {"size_min": 10},
    "a time long ago": {"changed_since": datetime(2020, 1, 1, tzinfo=UTC)},
}
DRIVEN: dict[str, dict[str, Any]] = {
    "a name": {"name": "web-1"},
    "a size": {"size_min": 5, "size_max": 10},
    "a rare property": {"properties": {"os": "linux", "serial": "4"}},
    "a time just now": {"changed_since": datetime(2030, 1, 1, tzinfo=UTC)},
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteDatabase]:
    url = registry_url(tmp_path_factory.mktemp("lists"))
    SqlRegistry(url=url, migrate=True).close()
    database = SqliteDatabase(url=url, busy_timeout=5)
    assert fill(database.path, various_images(IMAGES)) == IMAGES
    yield database
    database.close()


def plan_of(database: SqliteDatabase, query: ImageQuery) -> list[str]:
    """Ask SQLite how it would find the page (https://sqlite.org/eqp.html)."""
    with database.reading() as connection:
        prepared = Lists(SqliteDatabase.ways).prepare(connection, query)
        if prepared is None:
            return []
        statement, values = prepared
        compiled = statement.compile(connection)
        bound = compiled.construct_params(values)
        ordered = tuple(bound[name] for name in compiled.positiontup or ())
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", ordered)]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("sort_key", SORTED_BY)
def test_pages_are_read_off_indexes(database: SqliteDatabase, caller: str, sort_key: str) -> None:
    for direction, marker in itertools.product(SortDirection, [None, "400"]):
        query = replace(CALLERS[caller], sort_key=SortKey(sort_key), sort_direction=direction, marker=marker)
        for step in plan_of(database, query):
            assert "SCAN" not in step
            assert "TEMP B-TREE" not in step
            if step.startswith("SEARCH") and marker is not None:
                # The place of the marker, equal values included, is where reading begins.
                assert f"({sort_key},seq)" in step


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("filters", WALKED)
def test_a_common_filter_thins_out_what_is_walked(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, caller: str, filters: str
) -> None:
    # Even of these images there are few in some ranges, which are sorted then.
    monkeypatch.setattr(lists, "_FEW", 0)
    query = replace(CALLERS[caller], **WALKED[filters])
    steps = plan_of(database, query)
    assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step]


@pytest.mark.parametrize("filters", DRIVEN)
def test_a_rare_filter_leads(database: SqliteDatabase, filters: str) -> None:
    query = replace(CALLERS["owner"], **DRIVEN[filters])
    steps = [step for step in plan_of(database, query) if step.startswith(("SCAN", "SEARCH"))]
    assert steps
    assert not [step for step in steps if step.startswith("SCAN") or "shelf_created_at" in step]


def test_a_filled_registry_is_one_that_was_added_to(tmp_path: Path) -> None:
    images = list(various_images(50))
    filled, added = registry_url(tmp_path / "filled"), registry_url(tmp_path / "added")
    SqlRegistry(url=filled, migrate=True).close()
    fill(tmp_path / "filled" / "registry.sqlite", images)
    with closing(SqlRegistry(url=filled)) as one, closing(SqlRegistry(url=added, migrate=True)) as other:
        for image in images:
            other.add(image)
        assert one.changes(since=0) == other.changes(since=0)
        assert one.holdings() == other.holdings()
        assert one.integrity_check() == other.integrity_check() == []


def test_walking_and_looking_up_find_the_same(database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = [CALLERS[caller] for caller in ("stranger", "owner", "admin")]
    keys = (SortKey.CREATED_AT, SortKey.NAME, SortKey.TYPE)
    queries = [
        replace(caller, **filters, sort_key=key, limit=30)
        for caller, filters, key in itertools.product(callers, [*DRIVEN.values(), *WALKED.values()], keys)
    ]
    with database.reading() as connection:
        looked_up = [Lists(SqliteDatabase.ways).page(connection, query) for query in queries]
        monkeypatch.setattr(lists, "_FEW", 0)
        walked = [Lists(SqliteDatabase.ways).page(connection, query) for query in queries]
    assert [[image.id for image in page] for page in walked] == [[image.id for image in page] for page in looked_up]


def test_walking_finds_what_the_promises_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(lists, "_FEW", 0)

    class Machine(ListsMachine):
        def __init__(self) -> None:
            super().__init__()
            self.registry = SqlRegistry(url=registry_url(tmp_path_factory.mktemp("registry")), migrate=True)

        def teardown(self) -> None:
            self.registry.close()

    run_state_machine_as_test(Machine, settings=settings(max_examples=20, stateful_step_count=25))


def test_shapes_that_somebody_tries_are_forgotten(database: SqliteDatabase) -> None:
    found = Lists(SqliteDatabase.ways)
    with database.reading() as connection:
        for count in range(1200):
            properties = {f"key-{number}": "x" for number in range(count % 40)}
            direction = [*SortDirection][count % 2]
            query = ImageQuery(properties=properties, sort_key=[*SortKey][count % 9], sort_direction=direction)
            assert found.prepare(connection, query) is not None
    assert len(found._statements) <= 500
