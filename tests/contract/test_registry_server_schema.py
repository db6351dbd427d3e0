# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.registries.sql` promises of its tables on a server: made, upgraded and refused as on SQLite.

Threading: one test races threads on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from glancefs.errors import ConfigError, RegistryUnavailable, SchemaTooNew
from glancefs.registries.database import Database
from glancefs.registries.engines import open_database
from glancefs.registries.folders import View
from glancefs.registries.schema import REVISIONS
from glancefs.registries.server import ServerDatabase
from glancefs.registries.sql import SqlRegistry
from glancefs.registries.upgrade import migrate_by_steps, upgrade
from tests.contract.folder_contract import folders_in, image, names_in
from tests.contract.registry_model import an_image
from tests.support.databases import Server, server

ALICE = View(viewer="alice")
KINDS = [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in ("postgresql", "mariadb")]


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest) -> Server:
    return server(request.param)


@pytest.fixture
def url(running: Server) -> str:
    return running.fresh()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with closing(open_database(url, busy_timeout=20, connections=3)) as database:
        yield database


def migrate(database: Database, target: str, *, down: bool = False) -> None:
    with database.connect_to_write() as connection:
        database.begin_upgrading(connection)
        migrate_by_steps(connection, target=target, down=down)
        database.end_writing(connection, commit=True)


def differences(database: Database) -> list[object]:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, database.metadata))


def tables(database: Database) -> dict[str, list[str]]:
    """Give every table with its columns and indexes, as the server tells of them."""
    with database.reading() as connection:
        look = inspect(connection)
        found = {}
        for name in look.get_table_names():
            columns = [f"{one['name']} {one['type']!r} {one.get('computed')}" for one in look.get_columns(name)]
            indexes = [f"{one['name']} {one['column_names']} {one['unique']}" for one in look.get_indexes(name)]
            keys = [look.get_pk_constraint(name)["constrained_columns"], look.get_foreign_keys(name)]
            found[name] = [*sorted(columns), *sorted(indexes), *map(str, keys)]
        return found


def test_steps_lead_up_to_the_schema_of_the_code_and_down_to_nothing(running: Server, database: Database) -> None:
    migrate(database, "head")
    assert differences(database) == []
    by_steps = tables(database)
    with closing(open_database(running.fresh(), busy_timeout=20, connections=3)) as other:
        assert upgrade(other)
        assert differences(other) == []
        assert tables(other) == by_steps
    for target in (*reversed(REVISIONS[:-1]), "base"):
        migrate(database, target, down=True)
    assert set(tables(database)) <= {"alembic_version"}
    migrate(database, "head")
    assert tables(database) == by_steps


def test_images_of_an_older_schema_get_their_folders(url: str, database: Database) -> None:
    names = ["a/b", "a//c", "x", "\n/y", "nul\0/\1z"]
    with closing(SqlRegistry(url=url, migrate=True)) as registry:
        added = [registry.add(image(name)) for name in names]
        registry.delete(added[2].id, expected_revision=added[2].revision, deleted_at=added[2].created_at)
    migrate(database, "0001", down=True)
    with pytest.raises(ConfigError, match="older schema"):
        SqlRegistry(url=url)
    with closing(SqlRegistry(url=url, migrate=True)) as upgraded:
        assert folders_in(upgraded, "", ALICE) == ["%0A", "a", "nul%00"]
        assert names_in(upgraded, "a/%_", ALICE) == ["a//c"]
        assert names_in(upgraded, "nul%00", ALICE) == ["nul\0/\1z"]
        assert upgraded.folders.first_named("x", ALICE) is None
    assert differences(database) == []


def test_many_upgrades_at_once_make_one_database(url: str) -> None:
    def adds(_: int) -> str:
        with closing(SqlRegistry(url=url, migrate=True)) as registry:
            return registry.add(an_image()).id

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(adds, range(4))) == list("1234")


def test_a_database_without_a_registry_says_how_to_make_one(url: str) -> None:
    with pytest.raises(ConfigError, match="`glancefs db upgrade` makes it"):
        SqlRegistry(url=url)


def test_a_later_schema_is_refused_in_one_line(running: Server, url: str) -> None:
    SqlRegistry(url=url, migrate=True).close()
    running.execute("UPDATE alembic_version SET version_num = '9999'", url=url)
    for to_date in (False, True):
        with pytest.raises(SchemaTooNew, match=r"later version of glancefs.*'9999'"):
            SqlRegistry(url=url, migrate=to_date)


def test_somebody_elses_database_is_left_alone(running: Server, url: str, database: Database) -> None:
    running.execute("CREATE TABLE theirs (x INTEGER)", url=url)
    with pytest.raises(ConfigError, match="something else"):
        SqlRegistry(url=url, migrate=True)
    assert list(tables(database)) == ["theirs"]


def test_a_creation_that_was_cut_off_is_begun_anew(running: Server, url: str) -> None:
    SqlRegistry(url=url, migrate=True).close()
    running.execute("DELETE FROM counters", "DROP TABLE alembic_version", "DROP TABLE holdings", url=url)
    with closing(SqlRegistry(url=url, migrate=True)) as registry:
        assert registry.add(an_image()).id == "1"


@pytest.mark.parametrize("wrong", ["missing", "password"])
def test_who_may_not_come_in_learns_why_and_tells_no_secret(running: Server, wrong: str) -> None:
    if wrong == "missing":
        url = running.url("nowhere").replace("/postgres?", "/nowhere?")
    else:
        url = running.url("mysql", user="stranger", password="hush-hush")
    with pytest.raises(RegistryUnavailable, match=r"its server has none|refuses this user|can't be reached") as refused:
        SqlRegistry(url=url, migrate=True)
    assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql+asyncpg://u:hush@h/d",
        "mysql+mysqldb://u:hush@h/d",
        "oracle://u:hush@h/d",
        "postgresql://u:hush@h:x/d",
    ],
)
def test_a_url_that_means_no_database_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"looks like sqlite") as refused:
        SqlRegistry(url=wrong)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "modules", "extra"),
    [
        ("postgresql://me@host/name", ["psycopg", "glancefs.registries.postgresql"], "postgresql"),
        ("mysql://me@host/name", ["pymysql", "MySQLdb"], "mariadb"),
    ],
)
def test_a_missing_driver_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, url: str, modules: list[str], extra: str
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"^A registry on \w+ needs its driver; `pip install 'glancefs\[{extra}\]'`"):
        SqlRegistry(url=url)


@pytest.mark.parametrize("said", ["0", "many", "1001"])
def test_the_url_says_how_many_connections(running: Server, said: str) -> None:
    url = running.take()
    with closing(SqlRegistry(url=f"{url}&connections=3")) as registry:
        assert isinstance(registry._database, ServerDatabase)
        assert registry._database._engine.pool.status().startswith("Pool size: 3 ")
        assert registry.revision() == 0
    with pytest.raises(ConfigError, match="connections"):
        SqlRegistry(url=f"{url}&connections={said}")
