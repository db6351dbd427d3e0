# SPDX-License-Identifier: Apache-2.0
"""Which database a URL means.

Answers for choosing the class, and for loading only what it needs: drivers are big, and optional.

Threading: pure functions.
"""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from glancefs.errors import ConfigError
from glancefs.registries.database import Database, driver_is_missing

_FORMS = "sqlite:////path/of/the/database, postgresql+psycopg://user@host/name or mysql+pymysql://user@host/name"

_MOST_CONNECTIONS = 1000


def open_database(url: str, *, busy_timeout: float, connections: int) -> Database:
    """Give the database that a URL means, without connecting. Raises ConfigError for one that means none."""
    try:
        parsed = make_url(url)
        # A port that is no number is noticed late.
        engine, driver = parsed.get_backend_name(), parsed.get_driver_name() if "+" in parsed.drivername else None
    except (ArgumentError, ValueError):
        raise ConfigError(f"The registry's URL is not one; it looks like {_FORMS}.") from None
    except Exception as error:
        raise ConfigError(f"The registry's URL names a database that is not known; it looks like {_FORMS}.") from error
    match engine, driver:
        case "sqlite", _:
            from glancefs.registries.sqlite import SqliteDatabase  # noqa: PLC0415 - drivers are big, and optional

            return SqliteDatabase(url=url, busy_timeout=busy_timeout)
        case "postgresql", None | "psycopg":
            parsed, connections = _without_connections(parsed, connections)
            return _postgresql(parsed, busy_timeout=busy_timeout, connections=connections)
        case "mysql" | "mariadb", None | "pymysql":
            from glancefs.registries.mariadb import MariadbDatabase  # noqa: PLC0415 - drivers are big, and optional

            parsed, connections = _without_connections(parsed, connections)
            return MariadbDatabase(url=parsed, busy_timeout=busy_timeout, connections=connections)
        case _:
            raise ConfigError(f"The registry can't be kept in {parsed.drivername!r}; its URL looks like {_FORMS}.")


def _postgresql(url: URL, *, busy_timeout: float, connections: int) -> Database:
    try:
        from glancefs.registries.postgresql import PostgresqlDatabase  # noqa: PLC0415 - drivers are big, and optional
    except ImportError:
        raise driver_is_missing("PostgreSQL", "postgresql") from None
    return PostgresqlDatabase(url=url, busy_timeout=busy_timeout, connections=connections)


def _without_connections(url: URL, connections: int) -> tuple[URL, int]:
    """Read how many connections the URL asks for, which is nothing that a driver knows."""
    said = url.query.get("connections", str(connections))
    if not isinstance(said, str) or not said.isdecimal() or not 0 < int(said) <= _MOST_CONNECTIONS:
        raise ConfigError(f"The registry's URL asks for {said!r} connections: a whole number to {_MOST_CONNECTIONS}.")
    return url.difference_update_query(["connections"]), int(said)
