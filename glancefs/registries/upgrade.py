# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to the schema that this version works with, and refusing what it can't work with.

Answers for the version of the schema: checked by one cheap statement at every start. Alembic, which knows the steps, is
loaded only when there are steps to take: it costs a quarter of a second and 12 MiB.

Threading: two processes may upgrade at once; the second one finds the work done.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from glancefs.errors import ConfigError, SchemaTooNew
from glancefs.registries.database import Database
from glancefs.registries.schema import REVISIONS, counters

MIGRATIONS: Final = Path(__file__).with_name("migrations")

# As Alembic makes it, so that a new database, which is made without Alembic, has the same.
_VERSIONS: Final = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def check_schema(database: Database) -> None:
    """Raise ConfigError unless the database has the schema of this version; SchemaTooNew if it has a later one."""
    missing = f"There is no registry at {database.title}; `glancefs db upgrade` makes it."
    if not database.exists():
        raise ConfigError(missing)
    with database.reading() as connection:
        version = schema_version(connection)
        is_empty = version is None and not inspect(connection).get_table_names()
    if is_empty:
        raise ConfigError(missing)
    _check_known(version)
    if version != REVISIONS[-1]:
        raise ConfigError(
            f"The registry {database.title} has an older schema; `glancefs db upgrade` brings it up to date."
        )


def upgrade(database: Database) -> bool:
    """Make the database, or bring it up to date. Gives whether there was anything to do; raises SchemaTooNew."""
    database.make()
    with database.reading() as connection:
        if schema_version(connection) == REVISIONS[-1]:
            return False
    with database.connect_to_write(patient=True) as connection:
        database.begin_upgrading(connection)
        done = False
        try:
            changed = _upgrade_in_transaction(connection, database)
            database.end_writing(connection, commit=True)
            done = True
        finally:
            if not done:
                database.end_writing(connection, commit=False)
    return changed


def schema_version(connection: Connection) -> str | None:
    """Give the revision of the database's schema; None where it has none."""
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    return connection.execute(select(_VERSIONS.c.version_num)).scalar_one_or_none()


def migrate_by_steps(connection: Connection, *, target: str = "head", down: bool = False) -> None:
    """Take every step that leads up (or ``down``) to the target, in the caller's transaction."""
    # A registry that is up to date, which is nearly every one, starts without Alembic.
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, target)


def _upgrade_in_transaction(connection: Connection, database: Database) -> bool:
    """Do what is left to do, seen from inside the transaction: another process may just have done it."""
    version = schema_version(connection)
    _check_known(version)
    if version == REVISIONS[-1]:
        return False
    if version is not None:
        migrate_by_steps(connection)
        return True
    tables = set(inspect(connection).get_table_names())
    if not tables <= set(database.metadata.tables) or ("counters" in tables and _is_counting(connection)):
        raise ConfigError("The registry's database holds something else.")
    # Not every database takes back the tables of a transaction that was cut off; what has no version was never used.
    database.metadata.drop_all(connection)
    database.metadata.create_all(connection)
    connection.execute(insert(counters), {"id": 1, "revision": 0, "next_id": 1, "identity": uuid.uuid4().hex})
    _VERSIONS.create(connection)
    connection.execute(insert(_VERSIONS), {"version_num": REVISIONS[-1]})
    return True


def _is_counting(connection: Connection) -> bool:
    return connection.execute(select(counters.c.id)).first() is not None


def _check_known(version: str | None) -> None:
    if version is not None and version not in REVISIONS:
        raise SchemaTooNew(
            f"The registry's database was made by a later version of glancefs (its schema is {version!r})."
        )
