# SPDX-License-Identifier: Apache-2.0
"""The contracts about write locks and dead properties over `glancefs.registries.sql`, and what they cost there.

Threading: see the contracts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from glancefs.errors import StoreFull
from glancefs.registries import locks as promises
from glancefs.registries.base import Registry
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.dead_property_contract import DeadPropertyContract
from tests.contract.lock_contract import LockContract, acquire, by, delete, put
from tests.contract.registry_model import NOON
from tests.support.databases import sqlite


class TestSqlLocks(LockContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return SqlRegistry(url=registry_url(folder), migrate=True)


class TestSqlLocksWhenThereAreMany(LockContract):
    """As above, but every question goes to the database."""

    @staticmethod
    def open(folder: Path) -> Registry:
        return SqlRegistry(url=registry_url(folder), migrate=True)

    @pytest.fixture(autouse=True)
    def look_through_none_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("glancefs.registries.sql_locks._FEW", -1)


class TestSqlDeadProperties(DeadPropertyContract):
    @staticmethod
    def open(folder: Path) -> Registry:
        return SqlRegistry(url=registry_url(folder), migrate=True)


@pytest.fixture
def registry(tmp_path: Path) -> SqlRegistry:
    return SqlRegistry(url=registry_url(tmp_path), migrate=True)


def test_without_locks_and_dead_properties_no_change_asks_for_any(registry: SqlRegistry) -> None:
    # Nor once the last one is gone.
    lock = acquire(registry)
    registry.locks.release(lock.token, user="ann", now=NOON)
    statements: list[str] = []
    event.listen(
        sqlite(registry)._engine, "before_cursor_execute", lambda _c, _u, statement, *_: statements.append(statement)
    )
    image = put(registry, "a")
    registry.replace(image, expected_revision=image.revision, presented=by())
    image = registry.get(image.id)
    delete(registry, image, by())
    registry.close()
    assert statements
    tables = ("FROM locks", "INTO locks", "image_dead_properties", "folder_dead_properties")
    assert [text for text in statements if any(table in text for table in tables)] == []


def test_a_user_holds_so_many_locks_and_no_more(registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glancefs.registries.sql_locks.MOST_LOCKS", 2)
    assert promises.MOST_LOCKS > 2
    for path in ("a", "b"):
        acquire(registry, path)
    with pytest.raises(StoreFull):
        acquire(registry, "c")
    acquire(registry, "c", user="bob", guards="bob")
    registry.close()


def test_locks_are_found_by_an_index(registry: SqlRegistry) -> None:
    plans: list[str] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith("SELECT") and "FROM locks" in statement:
            plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    acquire(registry, "a/b")
    event.listen(sqlite(registry)._engine, "before_cursor_execute", explain)
    registry.locks.covering("a/b/c", guarding="ann", now=NOON)
    registry.locks.below("a", guarding="ann", now=NOON)
    deep = promises.Touched(path="a", guarding="ann", is_deep=True)
    registry.locks.check([deep], by(at=NOON.replace(year=2030)))
    registry.close()
    assert plans
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
