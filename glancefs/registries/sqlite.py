# SPDX-License-Identifier: Apache-2.0
"""SQLite as the registry's database: its file, connections, locks, and what its errors mean.

Answers for everything about the database that another database does in another way. Knows no tables.

Commits are durable: the write-ahead log is synced before a commit returns. Readers never wait for writers.

Threading: connections are lent to one thread at a time; those for reading are kept for whoever comes next.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, FromClause, create_engine, event
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from glancefs.errors import ConfigError, InvalidRequest, RegistryUnavailable, StoreFull

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -4000",
    "PRAGMA wal_autocheckpoint = 2000",
    "PRAGMA journal_size_limit = 67108864",
)
_LONGEST_PAUSE: Final = 0.002
"""Between two attempts to begin writing, in seconds: less than most transactions take."""


class SqliteDatabase:
    """One SQLite database file. Raises ConfigError for a URL that names none."""

    def __init__(self, *, url: str, busy_timeout: float) -> None:
        try:
            checked = make_url(url)
        except ArgumentError:
            raise ConfigError("The registry's URL is not one; it looks like sqlite:////path/of/the/database.") from None
        if checked.get_backend_name() != "sqlite" or checked.database in {None, "", ":memory:"}:
            raise ConfigError(f"The registry can't be kept in {checked.render_as_string()!r}; use sqlite:////a/path.")
        self.path = Path(str(checked.database))
        self._busy_timeout = busy_timeout
        self._closed = False
        self._idle: deque[Connection] = deque()
        self._engine = create_engine(
            checked,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args={"check_same_thread": False, "timeout": busy_timeout},
        )
        self._engine.dialect.statement_compiler = _HintingCompiler
        event.listen(self._engine, "connect", _prepare)

    def create_file(self) -> None:
        """Make the file, and the folders that are missing, for this user alone; leave what exists as it is."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError(f"The registry's database {self.path} can't be made: {error.strerror}.") from None

    def connect(self) -> Connection:
        """Give a new connection, which commits every statement by itself until `begin_writing`.

        Raises RegistryUnavailable.
        """
        if self._closed:
            raise RegistryUnavailable("The registry is closed.")
        try:
            return self._engine.connect()
        except SQLAlchemyError as error:
            raise translated(error) from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection for statements that only read. Database errors inside come out translated."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.connect()
        try:
            yield connection
        except SQLAlchemyError as error:
            connection.close()
            raise translated(error) from None
        except BaseException:
            connection.close()
            raise
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def begin_writing(self, connection: Connection) -> None:
        """Begin a transaction as the only writer. Raises RegistryUnavailable when others write for too long.

        SQLite's own way of waiting sleeps ever longer, which starves whoever came late; this one keeps asking.
        """
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except DBAPIError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(random.uniform(0, _LONGEST_PAUSE))  # noqa: S311 - spreads the contenders, guards nothing

    def integrity_check(self, connection: Connection) -> Sequence[str]:
        """Give what is wrong with the database, in SQLite's words."""
        found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        found = [] if found == ["ok"] else list(found)
        return found + [
            f"{row[0]}: a row refers to nothing" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
        ]

    def close(self) -> None:
        """Let go of the connections that nobody uses; the others go when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def end_writing(connection: Connection, *, commit: bool) -> None:
    """Commit or roll back what `SqliteDatabase.begin_writing` began."""
    if commit:
        connection.exec_driver_sql("COMMIT")
    elif connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]  # sqlite3's own attribute
        connection.exec_driver_sql("ROLLBACK")


def translated(error: Exception) -> Exception:
    """Give our error for a database's, whose text tells nothing of statements and values; others as they are."""
    if isinstance(error, (OverflowError, UnicodeError)):
        return InvalidRequest("The registry can't keep such a number or text.")
    if not isinstance(error, (SQLAlchemyError, sqlite3.Error)):
        return error
    code = _code(error)
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", type(error).__name__)
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("There is no room for the registry's database to grow.")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return RegistryUnavailable("The registry's database is in use by others for too long.")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return RegistryUnavailable(f"The registry's database is damaged, or is none ({name}).")
    return RegistryUnavailable(f"The registry's database does not answer ({name}).")


def _code(error: Exception) -> int | None:
    """Give SQLite's primary result code (https://sqlite.org/rescode.html)."""
    code: int | None = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)


class _HintingCompiler(SQLiteCompiler):
    """Renders hints that name an index, which SQLite understands and its dialect leaves out."""

    def get_from_hint_text(self, table: FromClause[Any], text: str | None) -> str | None:  # noqa: ARG002 - its signature
        return text
