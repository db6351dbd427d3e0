# SPDX-License-Identifier: Apache-2.0
"""The contract about the tree over `glancefs.registries.sql`, and what listing costs there.

Threading: none of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from glancefs.errors import ConfigError
from glancefs.registries.base import Registry
from glancefs.registries.folders import View
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.folder_contract import ALICE, FolderContract, folders_in, image, names_in
from tests.support.databases import sqlite


class TestSqlFolders(FolderContract):
    def make(self, folder: Path) -> Registry:
        return SqlRegistry(url=registry_url(folder), migrate=True)


@pytest.fixture
def registry(tmp_path: Path) -> SqlRegistry:
    return SqlRegistry(url=registry_url(tmp_path), migrate=True)


@pytest.mark.parametrize("view", [ALICE, View(viewer="root", sees_all=True), View()], ids=["user", "admin", "nobody"])
def test_looking_reads_indexes_and_sorts_no_folder(registry: SqlRegistry, view: View) -> None:
    plans: list[str] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            explained = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in explained)

    registry.add(image("a/b", is_public=True))
    event.listen(sqlite(registry)._engine, "before_cursor_execute", explain)
    registry.folders.images_in("a", view, after="0:a", limit=10)
    registry.folders.folders_in("", view)
    registry.folders.folder("a", view)
    registry.folders.first_named("a/b", view)
    registry.folders.first_of_their_names(["1"], view)
    registry.close()
    assert plans
    assert [plan for plan in plans if plan.startswith("SCAN images") or plan == "SCAN folders"] == []
    searched = [plan for plan in plans if plan.startswith("SEARCH images")]
    assert searched
    assert all("INDEX" in plan for plan in searched)


def test_what_a_name_means_is_remembered_until_anybody_changes_anything(registry: SqlRegistry, tmp_path: Path) -> None:
    statements: list[str] = []
    event.listen(sqlite(registry)._engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    other = SqlRegistry(url=registry_url(tmp_path))
    assert registry.folders.at("a", ALICE).image is None
    added = other.add(image("a"))
    assert registry.folders.at("a", ALICE).image == added
    asked = len(statements)
    assert registry.folders.at("a", ALICE).image == added
    assert len(statements) == asked
    other.add(image("a/b"))
    found = registry.folders.at("a", ALICE)
    assert found.folder is not None
    assert registry.folders.at("a", View(viewer="bob")).image is None
    renamed = other.replace(replace(added, name="c"), expected_revision=added.revision)
    assert registry.folders.at("a", ALICE).image is None
    assert registry.folders.at("c", ALICE).image == renamed
    registry.close()
    other.close()


def test_images_of_long_properties_are_not_remembered(registry: SqlRegistry) -> None:
    registry.add(image("a", properties={"long": "x" * 10_000}))
    assert registry.folders.at("a", ALICE).image is not None
    assert not registry.folders._found
    registry.close()


def test_a_registry_of_the_first_schema_gets_its_folders(tmp_path: Path) -> None:
    url = registry_url(tmp_path)
    registry = SqlRegistry(url=url, migrate=True)
    names = ["a/b", "a//c", "x", "\n/y"]
    added = [registry.add(image(name)) for name in names]
    registry.delete(added[2].id, expected_revision=added[2].revision, deleted_at=added[2].created_at)
    with sqlite(registry).connect() as connection:
        for index in ("ix_images_shelf_folder", "ix_images_owner_shelf_folder"):
            connection.execute(text(f"DROP INDEX {index}"))
        for column in ("folder", "place"):
            connection.execute(text(f"ALTER TABLE images DROP COLUMN {column}"))
        for column in ("locks", "has_dead_properties"):
            connection.execute(text(f"ALTER TABLE counters DROP COLUMN {column}"))
        for table in ("folders", "locks", "image_dead_properties", "folder_dead_properties", "answers"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    registry.close()
    with pytest.raises(ConfigError):
        SqlRegistry(url=url)

    upgraded = SqlRegistry(url=url, migrate=True)
    assert folders_in(upgraded, "", ALICE) == ["%0A", "a"]
    assert names_in(upgraded, "a/%_", ALICE) == ["a//c"]
    assert upgraded.folders.first_named("x", ALICE) is None
    assert upgraded.replace(replace(added[0], name="z/z"), expected_revision=1).name == "z/z"
    assert names_in(upgraded, "z", ALICE) == ["z/z"]
    upgraded.close()
