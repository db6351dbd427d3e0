# SPDX-License-Identifier: Apache-2.0
"""A database server as the registry's database: what PostgreSQL and MariaDB have in common.

Answers for connections (how many, how long they may take, what becomes of those that died), for transactions, and for
errors in our words. What each server says in its own way is in `postgresql` and `mariadb`. Knows no tables.

Nobody waits without end: connecting takes `CONNECTING` seconds at the most, and a statement as long as others may write
and a little more. A connection that idled is tried before it is used, and one that breaks off takes the idle ones with
it, so that a server that was started anew is noticed once and not by everybody.

Threading: connections are lent to one thread at a time, at the most so many as are configured, and one for writing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, ClassVar, Final

from sqlalchemy import URL, ColumnElement, Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool, PoolProxiedConnection

from glancefs.errors import ConfigError, InvalidRequest, RegistryUnavailable, StoreFull
from glancefs.registries.base import POLLED
from glancefs.registries.database import ConnectionLost, Contended, OutcomeUnknown, Ways, driver_is_missing
from glancefs.registries.server_schema import server_metadata

CONNECTING: Final = 3
"""In seconds; a server that is there takes milliseconds."""

_QUEUEING: Final = 4.0
"""How long who reads waits for a connection that others use, in seconds."""

_TRUSTED: Final = 1.0
"""For how many seconds after its last use a connection is believed to be alive."""

GRACE: Final = 2.0
"""How much longer than the server's own time limits the answer may take, in seconds."""

_KEPT_BY_NOBODY: Final[Mapping[str, Any]] = MappingProxyType(
    {"isolation_level": "READ COMMITTED", "poolclass": NullPool, "pool_reset_on_return": None}
)
"""How connections are made for one user, who closes them: then the server rolls back by itself, so nobody asks it to.

One that is dead already would refuse that, and SQLAlchemy tells the log of it as of an error of the program's.
"""


class ServerDatabase(ABC):
    """One database of a server. Raises ConfigError where its driver is missing."""

    ways: ClassVar[Ways]
    kind: ClassVar[str]
    extra: ClassVar[str]
    driver: ClassVar[str]
    reasons: ClassVar[Mapping[object, str]]
    """What the server's error codes mean to an operator."""
    contended: ClassVar[frozenset[object]]
    """Codes of errors after which the whole transaction may simply be tried again."""
    full: ClassVar[frozenset[object]]
    invalid: ClassVar[frozenset[object]]
    """Codes of errors about values that can't be kept."""

    def __init__(self, *, url: URL, busy_timeout: float, connections: int) -> None:
        self._url = url.set(drivername=self.driver)
        self._busy_timeout = busy_timeout
        self._closed = False
        self._patient: Engine | None = None
        try:
            self._engine = self._make_engine(
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=_QUEUEING,
            )
            self._writers = self._make_engine(**_KEPT_BY_NOBODY)
        except ModuleNotFoundError:
            raise driver_is_missing(self.kind, self.extra) from None
        except (SQLAlchemyError, TypeError, ValueError):
            raise ConfigError(f"The registry's URL is none that {self.kind} understands.") from None
        event.listen(self._engine, "checkout", _try_idle(self._engine))
        event.listen(self._engine, "checkin", _note_use)

    @property
    def metadata(self) -> MetaData:
        """See `Database.metadata`."""
        return server_metadata()

    @property
    def title(self) -> str:
        """See `Database.title`."""
        host = self._url.host or "this machine"
        return f"{self._url.database!r} of {self.kind} on {host}"

    def exists(self) -> bool:
        """See `Database.exists`: whether it does is the server's to say."""
        return True

    def make(self) -> None:  # noqa: B027 - nothing is what every server does
        """See `Database.make`: who runs the server makes its databases."""

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """See `Database.reading`."""
        connection = self._connect(self._engine)
        try:
            yield connection
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None)
            # What is no text is the caller's to explain, as where no driver wraps it.
            raise cause if isinstance(cause, UnicodeError) else self.translated(error) from None
        finally:
            connection.close()

    def connect_to_write(self, *, patient: bool = False) -> Connection:
        """See `Database.connect_to_write`."""
        if not patient:
            return self._connect(self._writers)
        if self._patient is None:
            self._patient = self._make_engine(patient=True, **_KEPT_BY_NOBODY)
        return self._connect(self._patient)

    def begin_writing(self, connection: Connection) -> None:
        """See `Database.begin_writing`; the first statement waits, for the row that counts."""
        if connection.in_transaction():
            connection.rollback()
        connection.begin()

    @abstractmethod
    def begin_upgrading(self, connection: Connection) -> None:
        """See `Database.begin_upgrading`."""

    def end_writing(self, connection: Connection, *, commit: bool) -> None:
        """See `Database.end_writing`. Raises OutcomeUnknown when the server did not say what became of it."""
        if not commit:
            # The server rolls back what it no longer hears of.
            with suppress(SQLAlchemyError):
                connection.rollback()
            return
        try:
            connection.commit()
        except SQLAlchemyError as error:
            if isinstance(self.translated(error), ConnectionLost):
                raise OutcomeUnknown(
                    "The registry's database broke off in the middle of a commit; whether it was made is not known."
                ) from None
            raise

    def news(self) -> Sequence[ColumnElement[Any]]:
        """See `Database.news`."""
        return ()

    def wait(self, seconds: float) -> None:
        """See `Database.wait`."""
        time.sleep(min(seconds, POLLED))

    def translated(self, error: Exception) -> Exception:
        """See `Database.translated`."""
        if isinstance(getattr(error, "orig", error), (OverflowError, UnicodeError)):
            return InvalidRequest("The registry can't keep such a number or text.")
        if isinstance(error, PoolTimeout):
            return RegistryUnavailable("All connections to the registry's database are in use.")
        return self._said(error) if isinstance(error, (SQLAlchemyError, OSError)) else error

    def _said(self, error: Exception) -> Exception:
        """Give what the server's or the driver's error means."""
        code = self._code(error)
        name = type(error).__name__ if code is None else code
        if code in self.invalid:
            return InvalidRequest("The registry can't keep such a number or text.")
        if code in self.full:
            return StoreFull("There is no room for the registry's database to grow.")
        if code in self.contended:
            return Contended(f"The registry's database could not order what came at once ({name}).")
        reason = self.reasons.get(code)
        if reason is None and self._is_lost(error, code):
            return ConnectionLost(f"The connection to the registry's database broke off ({name}).")
        return RegistryUnavailable(f"The registry's database {reason or 'does not answer'} ({name}).")

    def integrity_check(self, connection: Connection) -> Sequence[str]:
        """See `Database.integrity_check`: servers have tools for it; this looks whether rows refer to rows."""
        lost = connection.exec_driver_sql(
            "SELECT 1 FROM image_properties WHERE seq NOT IN (SELECT seq FROM images) LIMIT 1"
        ).first()
        return [] if lost is None else ["image_properties: a row refers to nothing"]

    @abstractmethod
    def settle(self) -> None:
        """See `Database.settle`."""

    def set_room_aside(self) -> bool:
        """See `Database.set_room_aside`: the server's disk is the server's."""
        return False

    def give_room(self) -> bool:
        """See `Database.give_room`."""
        return False

    def close(self) -> None:
        """See `Database.close`."""
        self._closed = True
        self._engine.dispose()
        self._writers.dispose()
        if self._patient is not None:
            self._patient.dispose()

    # ---- what each server has of its own

    @abstractmethod
    def _connect_arguments(self, patience: float | None) -> dict[str, Any]:
        """Give what the driver is to be told; None: a statement may take as long as it takes."""

    @abstractmethod
    def _prepare(self, connection: Any, patience: float | None) -> None:  # noqa: ANN401 - the driver's own
        """Set up a new connection of the driver."""

    @abstractmethod
    def _code(self, error: Exception) -> object:
        """Give the server's code of an error, or None."""

    @abstractmethod
    def _has_ended(self, code: object) -> bool:
        """Tell whether a code says that the session has ended."""

    def _is_lost(self, error: Exception, code: object) -> bool:
        """Tell whether an error means that the connection is gone."""
        return isinstance(error, DBAPIError) and (error.connection_invalidated or self._has_ended(code))

    def _make_engine(self, *, patient: bool = False, **options: Any) -> Engine:  # noqa: ANN401 - as SQLAlchemy has it
        patience = None if patient else self._busy_timeout
        arguments = self._connect_arguments(patience)
        engine = create_engine(self._url, hide_parameters=True, connect_args=arguments, **options)
        event.listen(engine, "connect", lambda connection, _: self._prepare(connection, patience))
        return engine

    def _connect(self, engine: Engine) -> Connection:
        if self._closed:
            raise RegistryUnavailable("The registry is closed.")
        try:
            return engine.connect()
        except (SQLAlchemyError, OSError) as error:
            if self._code(error) in self.reasons or isinstance(error, PoolTimeout):
                raise self.translated(error) from None
            # Not as a connection that was lost: a second attempt would wait as long again.
            raise RegistryUnavailable("The registry's database can't be reached.") from None


def _try_idle(engine: Engine) -> Callable[[Any, Any, PoolProxiedConnection], None]:
    def checkout(connection: Any, record: Any, _: PoolProxiedConnection) -> None:  # noqa: ANN401 - the driver's own
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at < _TRUSTED:
            return
        try:
            engine.dialect.do_ping(connection)
        except Exception as error:
            # The pool makes a new connection then.
            raise DisconnectionError from error

    return checkout


def _note_use(_connection: object, record: Any) -> None:  # noqa: ANN401 - as SQLAlchemy has it
    record.info["used_at"] = time.monotonic()
