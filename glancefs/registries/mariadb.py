# SPDX-License-Identifier: Apache-2.0
"""MariaDB as the registry's database, over PyMySQL.

Answers for what MariaDB does in a way of its own: its time limits, its modes, and what its errors mean. MySQL is
another database by now, without the order of texts that is needed here, and is refused.

Threading: see `server`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from sqlalchemy import Connection, text

from glancefs.errors import ConfigError, RegistryUnavailable
from glancefs.registries.database import Ways
from glancefs.registries.server import CONNECTING, GRACE, ServerDatabase
from glancefs.registries.texts import COLLATION

_LOCK: Final = "glancefs upgrade of "


class MariadbDatabase(ServerDatabase):
    """One database of a MariaDB server."""

    ways = Ways(has_keys=True, merges=False, compares_rows=False, needs_fence=False, gives_texts=False, leaps=False)
    kind = "MariaDB"
    extra = "mariadb"
    driver = "mysql+pymysql"
    # https://mariadb.com/kb/en/mariadb-error-codes/
    reasons: ClassVar[Mapping[object, str]] = MappingProxyType(
        {
            1040: "takes no more connections",
            1044: "may not be used by this user",
            1045: "refuses this user or password",
            1049: "is not there: its server has none of that name",
            1142: "may not be used by this user",
            1146: "has lost its tables",
            1203: "takes no more connections of this user",
            1205: "is in use by others for too long",
            1290: "may not be written",
            1698: "refuses this user or password",
            1792: "may not be written",
            1969: "took too long for an answer",
        }
    )
    contended = frozenset({1213, 1020})
    full = frozenset({1021, 1114, 1041, 28})
    invalid = frozenset({1118, 1264, 1366, 1406, 1690, 1071})

    def settle(self) -> None:
        """See `Database.settle`."""
        with self.connect_to_write(patient=True) as connection:
            connection.exec_driver_sql(f"ANALYZE TABLE {', '.join(self.metadata.tables)}").close()

    def _has_ended(self, code: object) -> bool:
        return code in {1053, 1077, 1078, 1079, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2014, 2055, 0}

    def begin_upgrading(self, connection: Connection) -> None:
        """See `Database.begin_upgrading`. The lock goes with the connection: statements that make tables commit."""
        values = {"name": (_LOCK + str(self._url.database))[:64], "seconds": int(self._busy_timeout)}
        self.begin_writing(connection)
        if connection.execute(text("SELECT GET_LOCK(:name, :seconds)"), values).scalar_one() != 1:
            raise RegistryUnavailable("The registry's database is being upgraded by somebody else.")

    def _connect_arguments(self, patience: float | None) -> dict[str, Any]:
        limit = None if patience is None else patience + GRACE
        return {
            "charset": "utf8mb4",
            "collation": COLLATION,
            "connect_timeout": CONNECTING,
            "read_timeout": limit,
            "write_timeout": limit,
            "local_infile": False,
        }

    def _prepare(self, connection: Any, patience: float | None) -> None:  # noqa: ANN401 - the driver's own
        if "MariaDB" not in connection.get_server_info():
            raise ConfigError("The registry's URL leads to MySQL; the registry works on MariaDB 10.6 and later.")
        seconds = max(1, int(self._busy_timeout))
        settings = (
            "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'",
            # Looking begins with the index that has the order, not with all that have a property.
            "optimizer_switch = 'exists_to_in=off'",
            f"innodb_lock_wait_timeout = {seconds}",
            f"lock_wait_timeout = {seconds}",
            f"max_statement_time = {0 if patience is None else patience}",
            "time_zone = '+00:00'",
        )
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {', SESSION '.join(settings)}")

    def _code(self, error: Exception) -> object:
        arguments = getattr(getattr(error, "orig", error), "args", ())
        return arguments[0] if arguments and isinstance(arguments[0], int) else None
