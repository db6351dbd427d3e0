# SPDX-License-Identifier: Apache-2.0
"""Which database a URL means.

Answers for choosing the class, and for loading only what it needs: drivers are big, and optional.

Threading: pure functions.
"""

from __future__ import annotations

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from glancefs.errors import ConfigError
from glancefs.registries.database import Database

_FORMS = "sqlite:////path/of/the/database, postgresql+psycopg://user@host/name or mysql+pymysql://user@host/name"


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
            from glancefs.registries.postgresql import PostgresqlDatabase  # noqa: PLC0415 - drivers are big, and optional

            return PostgresqlDatabase(url=parsed, busy_timeout=busy_timeout, connections=connections)
        case "mysql" | "mariadb", None | "pymysql":
            from glancefs.registries.mariadb import MariadbDatabase  # noqa: PLC0415 - drivers are big, and optional

            return MariadbDatabase(url=parsed, busy_timeout=busy_timeout, connections=connections)
        case _:
            raise ConfigError(f"The registry can't be kept in {parsed.drivername!r}; its URL looks like {_FORMS}.")
