# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.registries.sql` promises of its database file: who may read it, and which schemas it takes.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from glancefs.errors import ConfigError, RegistryUnavailable, SchemaTooNew
from glancefs.registries.folders import View
from glancefs.registries.schema import REVISIONS, metadata
from glancefs.registries.sql import SqlRegistry, registry_url
from glancefs.registries.sqlite import SqliteDatabase
from glancefs.registries.upgrade import MIGRATIONS, migrate_by_steps, upgrade
from tests.contract.folder_contract import folders_in, image, names_in
from tests.contract.registry_model import an_image

ALICE = View(viewer="alice")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "deeper"


@pytest.fixture
def url(folder: Path) -> str:
    return registry_url(folder)


@pytest.fixture
def registry(url: str) -> Iterator[SqlRegistry]:
    registry = SqlRegistry(url=url, migrate=True)
    yield registry
    registry.close()


@pytest.fixture
def by_steps(tmp_path: Path) -> Iterator[SqliteDatabase]:
    """Make a database as an upgrade does, step by step."""
    database = SqliteDatabase(url=f"sqlite:///{tmp_path}/steps.sqlite", busy_timeout=5)
    database.file.make()
    migrate(database, "head")
    yield database
    database.close()


def migrate(database: SqliteDatabase, target: str, *, down: bool = False) -> None:
    with database.connect_to_write() as connection:
        database.begin_upgrading(connection)
        migrate_by_steps(connection, target=target, down=down)
        database.end_writing(connection, commit=True)


def column(path: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute(query)]


def versions(path: Path) -> list[str]:
    return column(path, "SELECT version_num FROM alembic_version")


def tables(path: Path) -> list[str]:
    return column(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")


def contents(path: Path) -> list[str]:
    """Give everything that a database holds but its identity, as SQL; columns in any order, since steps add theirs."""
    connection = sqlite3.connect(path)
    try:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("UPDATE counters SET identity = ''")
        return sorted(with_sorted_columns(statement) for statement in connection.iterdump())
    finally:
        connection.close()


def with_sorted_columns(statement: str) -> str:
    if not statement.startswith("CREATE TABLE"):
        return statement
    head, _, rest = statement.partition("(")
    columns, _, tail = rest.rpartition(")")
    parts = re.split(r",(?![^(]*\))", columns)
    return f"{head}({', '.join(sorted(' '.join(part.split()) for part in parts))}){tail}"


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


# ---- the schema


def test_a_new_database_is_what_the_steps_make(by_steps: SqliteDatabase, registry: SqlRegistry, folder: Path) -> None:
    assert contents(folder / "registry.sqlite") == contents(by_steps.path)


def test_the_steps_lead_to_the_schema_of_the_code(by_steps: SqliteDatabase) -> None:
    with by_steps.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_steps_lead_down_to_nothing_and_up_again(by_steps: SqliteDatabase) -> None:
    at_the_top = contents(by_steps.path)
    for target in (*reversed(REVISIONS[:-1]), "base"):
        migrate(by_steps, target, down=True)
        assert versions(by_steps.path) == ([] if target == "base" else [target])
    assert tables(by_steps.path) == ["alembic_version"]
    migrate(by_steps, "head")
    assert contents(by_steps.path) == at_the_top


def test_images_of_an_older_schema_get_their_folders(by_steps: SqliteDatabase) -> None:
    names = ["a/b", "a//c", "x", "\n/y", "nul\0/\1z"]
    url = f"sqlite:///{by_steps.path}"
    with closing(SqlRegistry(url=url)) as registry:
        added = [registry.add(image(name)) for name in names]
        gone = registry.delete(added[2].id, expected_revision=added[2].revision, deleted_at=added[2].created_at)
    migrate(by_steps, "0001", down=True)
    with pytest.raises(ConfigError, match="older schema"):
        SqlRegistry(url=url)
    with closing(SqlRegistry(url=url, migrate=True)) as upgraded:
        assert [upgraded.get(one.id) for one in added] == [*added[:2], gone, *added[3:]]
        assert folders_in(upgraded, "", ALICE) == ["%0A", "a", "nul%00"]
        assert names_in(upgraded, "a/%_", ALICE) == ["a//c"]
        assert names_in(upgraded, "nul%00", ALICE) == ["nul\0/\1z"]
        assert upgraded.folders.first_named("x", ALICE) is None


def test_the_code_knows_every_step() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [step.revision for step in reversed(steps)] == list(REVISIONS)


def test_an_upgrade_says_whether_it_did_anything(url: str) -> None:
    database = SqliteDatabase(url=url, busy_timeout=5)
    assert [upgrade(database), upgrade(database)] == [True, False]
    database.close()


def test_many_upgrades_at_once_make_one_database(url: str) -> None:
    def adds(_: int) -> str:
        registry = SqlRegistry(url=url, migrate=True)
        try:
            return registry.add(an_image()).id
        finally:
            registry.close()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(adds, range(8))) == list("12345678")


def test_an_older_schema_is_brought_up_to_date(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    SqlRegistry(url=url, migrate=True).close()
    monkeypatch.setattr("glancefs.registries.upgrade.REVISIONS", (*REVISIONS, "9999"))
    with pytest.raises(ConfigError, match="older schema; `glancefs db upgrade`"):
        SqlRegistry(url=url)


def test_a_later_schema_is_refused_in_one_line(registry: SqlRegistry, folder: Path, url: str) -> None:
    execute(folder / "registry.sqlite", "UPDATE alembic_version SET version_num = '9999'")
    for migrate in (False, True):
        with pytest.raises(SchemaTooNew, match=r"^The registry.*later version of glancefs.*'9999'.*$"):
            SqlRegistry(url=url, migrate=migrate)


def test_a_database_that_is_not_there_is_not_made_unasked(folder: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="`glancefs db upgrade` makes it"):
        SqlRegistry(url=url)
    assert not folder.exists()


def test_somebody_elses_database_is_left_alone(folder: Path, url: str) -> None:
    folder.mkdir(parents=True)
    execute(folder / "registry.sqlite", "CREATE TABLE theirs (x)")
    before = contents(folder / "registry.sqlite")
    with pytest.raises(ConfigError, match="something else"):
        SqlRegistry(url=url, migrate=True)
    with pytest.raises(ConfigError, match="older schema"):
        SqlRegistry(url=url)
    assert contents(folder / "registry.sqlite") == before


@pytest.mark.parametrize("migrate", [False, True])
def test_a_file_that_is_no_database_is_refused(folder: Path, url: str, *, migrate: bool) -> None:
    folder.mkdir(parents=True)
    (folder / "registry.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(RegistryUnavailable, match="no database"):
        SqlRegistry(url=url, migrate=migrate)
    assert (folder / "registry.sqlite").read_bytes() == b"not a database" * 1000


@pytest.mark.parametrize("wrong", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "oracle://root:secret@host/db"])
def test_a_url_that_names_no_database_file_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        SqlRegistry(url=wrong, migrate=True)
    assert "secret" not in str(refused.value)


# ---- the file


def test_nobody_else_may_read_it(registry: SqlRegistry, folder: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    registry.add(an_image())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes) >= {"registry.sqlite", "registry.sqlite-wal", "registry.sqlite-shm"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_the_operators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be made"):
        SqlRegistry(url=registry_url(tmp_path / "file" / "below"), migrate=True)


def test_commits_are_durable(registry: SqlRegistry) -> None:
    with registry._database.connect_to_write() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]


def test_damage_is_found(registry: SqlRegistry, folder: Path) -> None:
    registry.add(an_image(properties={"os": "linux"}))
    assert list(registry.integrity_check()) == []
    execute(folder / "registry.sqlite", "DELETE FROM images")
    assert list(registry.integrity_check()) == ["image_properties: a row refers to nothing"]


def test_starting_loads_neither_alembic_nor_the_orm(registry: SqlRegistry, url: str) -> None:
    code = f"""
import sys
from glancefs.registries.sql import SqlRegistry
registry = SqlRegistry(url={url!r}, migrate=True)
registry.revision()
registry.close()
sys.exit(", ".join({{"alembic", "sqlalchemy.orm"}} & set(sys.modules)) or 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
