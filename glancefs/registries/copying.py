# SPDX-License-Identifier: Apache-2.0
"""Moving a registry from one database to another, of whatever kind.

Answers for everything coming along: every table, the identifiers, the revisions and the identity by which stores know
their registry. All of it is one transaction of the target: a copy that was cut off has left nothing there, and can
simply be begun again. The source's writers wait meanwhile, so that nothing changes behind the copy's back.

Threading: one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Table, func, insert, select, update

from glancefs.errors import ConfigError, RegistryUnavailable
from glancefs.registries.database import Database
from glancefs.registries.engines import open_database
from glancefs.registries.schema import counters, metadata
from glancefs.registries.upgrade import check_schema, upgrade

_AT_ONCE: Final = 1000
"""How many rows are read, and written, in one go."""

_PATIENCE: Final = 30.0
"""For how many seconds others may keep either database to themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy has moved."""

    images: int
    rows: int
    revision: int


_IDENTITY: Final = select(counters.c.identity).where(counters.c.id == 1)

Progress = Callable[[str, int, int], object]
"""Called with the name of a table, how many of its rows are there, and how many there will be."""


def copy_registry(source: str, target: str, *, progress: Progress) -> Copied:
    """Copy the registry at one URL to another one, which must hold none, or one in which nothing ever happened.

    Raises ConfigError for what can't be copied, or not there; RegistryUnavailable when either does not answer.
    """
    with (
        closing(open_database(source, busy_timeout=_PATIENCE, connections=2)) as here,
        closing(open_database(target, busy_timeout=_PATIENCE, connections=2)) as there,
    ):
        check_schema(here)
        with _errors_of(there):
            upgrade(there)
        with here.reading() as reader, there.reading() as other:
            # Locking one registry twice would only wait for itself.
            if reader.execute(_IDENTITY).scalar_one() == other.execute(_IDENTITY).scalar_one():
                raise ConfigError("A registry can't be copied to itself, nor where it was copied to before.")
        with _writing(here, commit=False) as reader, _writing(there, commit=True) as writer:
            copied = _copy(reader, writer, progress)
        there.set_room_aside()
        there.settle()
    return copied


def _copy(reader: Connection, writer: Connection, progress: Progress) -> Copied:
    lock = select(counters).where(counters.c.id == 1).with_for_update()
    begun = writer.execute(lock).one()
    counted = reader.execute(lock).one()
    if begun.revision or begun.next_id != 1:
        raise ConfigError("The registry to copy to is in use; a copy needs one that is new.")
    rows = {}
    for table in metadata.sorted_tables:
        if table is not counters:
            rows[table.name] = _copy_table(table, reader, writer, progress)
    values = {column.name: getattr(counted, column.name) for column in counters.c}
    writer.execute(update(counters).where(counters.c.id == 1).values(**values))
    return Copied(images=rows["images"], rows=sum(rows.values()), revision=int(counted.revision))


def _copy_table(table: Table, reader: Connection, writer: Connection, progress: Progress) -> int:
    """Copy all rows; gives how many. Raises ConfigError where the target has some, RegistryUnavailable if any lack."""
    count = select(func.count()).select_from(table)
    total: int = reader.execute(count).scalar_one()
    if writer.execute(count).scalar_one():
        raise ConfigError(f"The registry to copy to is not empty: its table {table.name} holds rows.")
    done = 0
    found = reader.execution_options(stream_results=True).execute(select(*table.c))
    for piece in found.mappings().partitions(_AT_ONCE):
        writer.execute(insert(table), [dict(row) for row in piece])
        done += len(piece)
        progress(table.name, done, total)
    if done != total or writer.execute(count).scalar_one() != total:
        raise RegistryUnavailable(
            f"The copy of {table.name} has not as many rows as there are; nothing was kept of it."
        )
    return done


@contextmanager
def _writing(database: Database, *, commit: bool) -> Iterator[Connection]:
    """Give a connection as the only writer; what was written counts if nothing fails, and ``commit``."""
    with _errors_of(database), database.connect_to_write(patient=True) as connection:
        database.begin_writing(connection)
        done = False
        try:
            yield connection
            done = commit
        finally:
            database.end_writing(connection, commit=done)


@contextmanager
def _errors_of(database: Database) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        translated = database.translated(error)
        if translated is error:
            raise
        raise translated from None
