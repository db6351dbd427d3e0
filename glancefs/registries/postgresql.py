# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as the registry's database, over psycopg 3.

Answers for what PostgreSQL does in a way of its own: its time limits, what its errors mean, and news by NOTIFY.

Sessions are told to use indexes: every statement of ours is written for one, and a plan that was made for few images
must not be kept for many.

Threading: see `server`; one thread at a time waits for news, on a connection of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Lock
from types import MappingProxyType
from typing import Any, ClassVar, Final, cast

import psycopg
from sqlalchemy import URL, ColumnElement, Connection, func, text

from glancefs.errors import GlancefsError
from glancefs.registries.base import POLLED
from glancefs.registries.database import Ways
from glancefs.registries.server import CONNECTING, GRACE, ServerDatabase

_CHANNEL: Final = "glancefs"
_UPGRADING: Final = 0x676C616E6365
"""The advisory lock that upgrades take, a number that nobody else takes by chance."""

_SETTINGS: Final = (
    "enable_seqscan = off",
    "enable_bitmapscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "jit = off",
    "plan_cache_mode = force_custom_plan",
    # What is confirmed is on the disk, whatever the server's default is.
    "synchronous_commit = on",
)

_REFUSALS: Final = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    # Before what is said of one database: it is starting up, shutting down, or in recovery.
    ("the database system is ", "57P03"),
    ("role ", "28000"),
    ("database ", "3D000"),
    ("too many ", "53300"),
    ("remaining connection slots", "53300"),
)
"""What the server says to who connects, for which libpq gives no code."""

_NETWORK: Final = MappingProxyType(
    {
        "connect_timeout": CONNECTING,
        "keepalives_idle": 2,
        "keepalives_interval": 1,
        "keepalives_count": 2,
        "tcp_user_timeout": 4000,
        "application_name": "glancefs",
    }
)
"""How soon a server that vanished from the network is noticed: https://www.postgresql.org/docs/15/libpq-connect.html."""


class PostgresqlDatabase(ServerDatabase):
    """One database of a PostgreSQL server."""

    ways = Ways(
        has_keys=True,
        merges=False,
        compares_rows=True,
        needs_fence=True,
        sorts_bytes=False,
        gives_texts=False,
        leaps=False,
    )
    kind = "PostgreSQL"
    extra = "postgresql"
    driver = "postgresql+psycopg"
    # https://www.postgresql.org/docs/15/errcodes-appendix.html
    reasons: ClassVar[Mapping[object, str]] = MappingProxyType(
        {
            "25006": "may not be written",
            "28000": "refuses this user",
            "28P01": "refuses this user or password",
            "3D000": "is not there: its server has none of that name",
            "3F000": "has no schema to work in",
            "42501": "may not be used by this user",
            "42P01": "has lost its tables",
            "53300": "takes no more connections",
            "55P03": "is in use by others for too long",
            "57014": "took too long for an answer",
            "57P03": "is starting up or shutting down",
        }
    )
    contended = frozenset({"40001", "40P01"})
    full = frozenset({"53100"})
    invalid = frozenset({"22001", "22003", "22021", "22P05", "54000"})

    def __init__(self, *, url: URL, busy_timeout: float, connections: int) -> None:
        super().__init__(url=url, busy_timeout=busy_timeout, connections=connections)
        self._listening = Lock()
        self._listener: psycopg.Connection[Any] | None = None

    def _has_ended(self, code: object) -> bool:
        return isinstance(code, str) and (code.startswith("08") or code in {"57P01", "57P02", "57P05", "25P03"})

    def begin_upgrading(self, connection: Connection) -> None:
        """See `Database.begin_upgrading`."""
        self.begin_writing(connection)
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _UPGRADING})

    def news(self) -> Sequence[ColumnElement[Any]]:
        """See `Database.news`."""
        return (func.pg_notify(_CHANNEL, ""),)

    def settle(self) -> None:
        """See `Database.settle`: PostgreSQL does it by itself, but not at once."""
        with self.connect_to_write(patient=True) as connection:
            connection.exec_driver_sql(f"ANALYZE {', '.join(self.metadata.tables)}")
            connection.commit()

    def wait(self, seconds: float) -> None:
        """See `Database.wait`. Where it can't listen it comes back as soon as those do that only poll."""
        with self._listening:
            try:
                if self._listener is None:
                    # Whatever happened before it listened is news.
                    self._listener = self._listen()
                    return
                list(self._listener.notifies(timeout=seconds, stop_after=1))
            except (psycopg.Error, GlancefsError, OSError):
                self._stop_listening()
                time.sleep(min(seconds, POLLED))

    def close(self) -> None:
        """See `Database.close`."""
        super().close()
        with self._listening:
            self._stop_listening()

    def _listen(self) -> psycopg.Connection[Any]:
        with self._connect(self._writers) as connection:
            listener = cast("psycopg.Connection[Any]", connection.connection.dbapi_connection)
            try:
                listener.rollback()
                listener.autocommit = True
                listener.execute(f"LISTEN {_CHANNEL}")
            except psycopg.Error as error:
                # SQLAlchemy sees nothing of this: it would roll back what is gone, and fill the log with that.
                connection.invalidate(error)
                raise
            connection.detach()
        return listener

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _connect_arguments(self, patience: float | None) -> dict[str, Any]:  # noqa: ARG002 - `_prepare` sets the limits
        return {name: value for name, value in _NETWORK.items() if name not in self._url.query}

    def _prepare(self, connection: Any, patience: float | None) -> None:  # noqa: ANN401 - the driver's own
        settings = [*_SETTINGS, f"lock_timeout = {int(self._busy_timeout * 1000)}"]
        if patience is not None:
            settings += [f"statement_timeout = {int(patience * 1000)}", "idle_in_transaction_session_timeout = '60s'"]
            _limit(connection, patience + GRACE)
        before = connection.autocommit
        connection.autocommit = True
        connection.execute("; ".join(f"SET {setting}" for setting in settings))
        connection.autocommit = before

    def _code(self, error: Exception) -> object:
        code = getattr(getattr(error, "orig", error), "sqlstate", None)
        if code is not None:
            return code
        text = str(getattr(error, "orig", error))
        # What else there is in it, names of hosts and files, is not the server's.
        said = text.partition("FATAL:")[2] or text.partition("fe_sendauth:")[2]
        return next((code for words, code in _REFUSALS if words in said), None)


def _limit(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Have a server that is there but does not answer, stopped or stuck, taken for gone at last."""
    wait = connection.wait

    def limited(generator: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ANN401 - as psycopg has it
        try:
            return wait(generator, interval=interval, timeout=seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if timeout is None and connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                connection.pgconn.finish()
            raise

    # Where psycopg waits for every answer.
    vars(connection)["wait"] = limited
