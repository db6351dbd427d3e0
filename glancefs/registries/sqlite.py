# SPDX-License-Identifier: Apache-2.0
"""SQLite as the registry's database: its file, connections, locks, and what its errors mean.

Answers for everything about the database that another database does in another way. Knows no tables.

Commits are durable: the write-ahead log is synced before a commit returns. Readers never wait for writers.

Threading: connections are lent to one thread at a time; those for reading are kept for whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self, cast

from sqlalchemy import ColumnElement, Connection, FromClause, MetaData, create_engine, event
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from glancefs.errors import ConfigError, InvalidRequest, RegistryUnavailable, StoreFull
from glancefs.registries import schema
from glancefs.registries.base import POLLED
from glancefs.registries.database import Ways
from glancefs.registries.database_file import DatabaseFile

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    # In KiB, per connection: there are as many as there were readers at once, and the system caches the file anyway.
    "PRAGMA cache_size = -1000",
    "PRAGMA wal_autocheckpoint = 2000",
    "PRAGMA journal_size_limit = 67108864",
)
_PAUSE: Final = 0.0005
"""Between two attempts to begin writing, on average, in seconds: less than most transactions take."""

_COURTESY: Final = 0.001
"""How long a writer stays away after its turn while others wait, in seconds: longer than any pause of theirs."""

_TURN: Final = 0.01
"""How long a writer may go on, transaction after transaction, while others wait, in seconds."""


_REASONS: Final[Mapping[int | None, str]] = MappingProxyType(
    {
        sqlite3.SQLITE_BUSY: "is in use by others for too long",
        sqlite3.SQLITE_LOCKED: "is in use by others for too long",
        sqlite3.SQLITE_READONLY: "may not be written",
        sqlite3.SQLITE_CANTOPEN: "can't be opened",
        sqlite3.SQLITE_CORRUPT: "is damaged",
        sqlite3.SQLITE_NOTADB: "is no database",
    }
)
"""What SQLite's result codes mean to an operator (https://sqlite.org/rescode.html)."""


class SqliteDatabase:
    """One SQLite database file. Raises ConfigError for a URL that names none."""

    ways: ClassVar[Ways] = Ways(
        has_keys=False,
        merges=True,
        compares_rows=True,
        needs_fence=False,
        sorts_bytes=False,
        gives_texts=True,
        leaps=True,
    )

    def __init__(self, *, url: str, busy_timeout: float) -> None:
        try:
            checked = make_url(url)
        except ArgumentError:
            raise ConfigError("The registry's URL is not one; it looks like sqlite:////path/of/the/database.") from None
        if checked.get_backend_name() != "sqlite" or checked.database in {None, "", ":memory:"}:
            raise ConfigError(f"The registry can't be kept in {checked.render_as_string()!r}; use sqlite:////a/path.")
        self.file = DatabaseFile(Path(str(checked.database)))
        self.path = self.file.path
        self._busy_timeout = busy_timeout
        self._queue = _Queue(self.path.with_name(self.path.name + "-waiting"))
        self._turn_began = 0.0
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

    @property
    def metadata(self) -> MetaData:
        """See `Database.metadata`."""
        return schema.metadata

    @property
    def title(self) -> str:
        """See `Database.title`."""
        return str(self.path)

    def exists(self) -> bool:
        """See `Database.exists`."""
        return self.path.exists()

    def make(self) -> None:
        """See `Database.make`."""
        self.file.make()

    def connect(self) -> Connection:
        """Give a new connection, which commits every statement by itself until `begin_writing`.

        Raises RegistryUnavailable.
        """
        if self._closed:
            raise RegistryUnavailable("The registry is closed.")
        self.file.check()
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise translated(error) from None
        self.file.check()
        return connection

    def connect_to_write(self, *, patient: bool = False) -> Connection:  # noqa: ARG002 - no statement is cut off
        """Give a new connection for `begin_writing`, which does its own waiting."""
        connection = self.connect()
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        # There is one writer; what it changes must fit, or goes to the disk before its time.
        connection.exec_driver_sql("PRAGMA cache_size = -8000")
        return connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection for statements that only read. Database errors inside come out translated."""
        self.file.check()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.connect()
        try:
            yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
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

        SQLite's own way of waiting sleeps ever longer, so that of two busy processes one starves; here who waits keeps
        asking, and is let in by who has just written.
        """
        self.file.check()
        if not connection.in_transaction():
            # To SQLAlchemy the connection is in one transaction for ever, so that nobody, as Alembic would, begins and
            # commits one of their own.
            connection.begin()
        driver = _driver_connection(connection)
        deadline = time.monotonic() + self._busy_timeout
        if not self._queue.others_wait():
            self._turn_began = time.monotonic()
        elif time.monotonic() > self._turn_began + _TURN:
            time.sleep(_COURTESY)
        with self._queue:
            while True:
                try:
                    driver.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise translated(error) from None
                else:
                    return
                self._queue.wait()
                self._turn_began = time.monotonic()

    def begin_upgrading(self, connection: Connection) -> None:
        """See `Database.begin_upgrading`: there is one writer anyway."""
        self.begin_writing(connection)

    def end_writing(self, connection: Connection, *, commit: bool) -> None:
        """Commit, or roll back, what `begin_writing` began."""
        driver = _driver_connection(connection)
        if commit or driver.in_transaction:
            driver.execute("COMMIT" if commit else "ROLLBACK")

    def integrity_check(self, connection: Connection) -> Sequence[str]:
        """Give what is wrong with the database, in SQLite's words."""
        found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        lost = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [text for text in found if text != "ok"] + [f"{row[0]}: a row refers to nothing" for row in lost]

    def news(self) -> Sequence[ColumnElement[Any]]:
        """See `Database.news`: it tells nobody."""
        return ()

    def wait(self, seconds: float) -> None:
        """See `Database.wait`."""
        time.sleep(min(seconds, POLLED))

    def translated(self, error: Exception) -> Exception:
        """See `Database.translated`."""
        return translated(error)

    def settle(self) -> None:
        """See `Database.settle`: statements name their indexes."""

    def set_room_aside(self) -> bool:
        """See `Database.set_room_aside`."""
        return self.file.set_room_aside()

    def give_room(self) -> bool:
        """See `Database.give_room`."""
        return self.file.give_room()

    def close(self) -> None:
        """Let go of the connections that nobody uses; the others go when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        self._queue.close()


def translated(error: Exception) -> Exception:
    """Give our error for a database's, whose text tells nothing of statements and values; others as they are."""
    if isinstance(error, (OverflowError, UnicodeError)):
        return InvalidRequest("The registry can't keep such a number or text.")
    if isinstance(error, OSError):
        return RegistryUnavailable(f"The registry's files can't be used: {error.strerror}.")
    if not isinstance(error, (SQLAlchemyError, sqlite3.Error)):
        return error
    if _code(error) == sqlite3.SQLITE_FULL:
        return StoreFull("There is no room for the registry's database to grow.")
    reason = _REASONS.get(_code(error), "does not answer")
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", type(error).__name__)
    return RegistryUnavailable(f"The registry's database {reason} ({name}).")


def _driver_connection(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.dbapi_connection)


def _code(error: Exception) -> int | None:
    """Give SQLite's primary result code (https://sqlite.org/rescode.html)."""
    code: int | None = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)


class _Queue:
    """Shows the other processes on a database that one waits to write: a lock on a file, gone with who holds it.

    Threading: one thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._shown = False

    def others_wait(self) -> bool:
        """Tell whether anybody else waits."""
        if not self._try_lock(fcntl.LOCK_EX):
            return True
        fcntl.flock(self._opened(), fcntl.LOCK_UN)
        return False

    def wait(self) -> None:
        """Wait a moment, in sight of the others; the end of the context takes that back."""
        self._shown = self._shown or self._try_lock(fcntl.LOCK_SH)
        time.sleep(random.uniform(0.5, 1.5) * _PAUSE)  # noqa: S311 - parts those who wait, guards nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            fcntl.flock(self._opened(), fcntl.LOCK_UN)
            self._shown = False

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _try_lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._opened(), kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        return self._file


class _HintingCompiler(SQLiteCompiler):
    """Renders hints that name an index, which SQLite understands and its dialect leaves out."""

    def get_from_hint_text(self, table: FromClause[Any], text: str | None) -> str | None:  # noqa: ARG002 - its signature
        return text
