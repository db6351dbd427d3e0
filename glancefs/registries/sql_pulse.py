# SPDX-License-Identifier: Apache-2.0
"""Reading past all that SQLAlchemy does for each statement and each row, where that is most of what a request takes.

Answers for where a database stands, which is the one row that every writer changes, for rows as tuples, and for
statements that go to the driver as they are.

Threading: pure functions over a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import CompoundSelect, Connection, CursorResult, Insert, Select, Update, select

from glancefs.registries.database import Ways
from glancefs.registries.schema import counters

_STATEMENT: Final = select(counters.c.revision, counters.c.locks, counters.c.has_dead_properties).where(
    counters.c.id == 1
)
_TEXT: Final = str(_STATEMENT.compile(compile_kwargs={"literal_binds": True}))


class Pulse(NamedTuple):
    """Where a database stands."""

    revision: int
    """The latest change of an image or a folder."""
    locks: int | None
    """How many locks there are, expired ones too."""
    has_dead_properties: bool | None
    """Whether there ever was one."""


def pulse_of(connection: Connection) -> Pulse:
    """Read where the database stands."""
    driver: Any = connection.connection.dbapi_connection
    try:
        cursor = driver.cursor()
        cursor.execute(_TEXT)
        row = cursor.fetchone()
        cursor.close()
    except Exception:  # noqa: BLE001 - every driver has errors of its own; asked the long way, they come out translated
        row = connection.execute(_STATEMENT).one()
    return Pulse(*row)


def fetched(result: CursorResult[Any], ways: Ways) -> Sequence[tuple[Any, ...]]:
    """Give rows as the driver does: what SQLAlchemy makes of each takes longer than all else that is done with it."""
    if not ways.gives_texts:
        return [tuple(row) for row in result]
    assert result.cursor is not None  # noqa: S101 - it selects
    rows: Sequence[tuple[Any, ...]] = result.cursor.fetchall()
    result.close()
    return rows


class Straight:
    """A statement whose text is made once, where the driver takes and gives values as they are kept.

    Always to be given values of the same names, and none of them a list.
    """

    def __init__(self, statement: Select[Any] | CompoundSelect[Any] | Insert | Update) -> None:
        self._statement: Final = statement
        self._text: str | None = None
        self._constants: dict[str, Any] = {}

    def rows(self, connection: Connection, values: dict[str, Any], ways: Ways) -> Sequence[tuple[Any, ...]]:
        """Give the rows that it finds."""
        if not ways.gives_texts:
            return [tuple(row) for row in connection.execute(self._statement, values)]
        rows: Sequence[tuple[Any, ...]] = self._cursor(connection, values).fetchall()
        return rows

    def change(self, connection: Connection, values: dict[str, Any], ways: Ways) -> int:
        """Give how many rows it changed."""
        if not ways.gives_texts:
            return int(connection.execute(self._statement, values).rowcount)
        return int(self._cursor(connection, values).rowcount)

    def _cursor(self, connection: Connection, values: dict[str, Any]) -> Any:  # noqa: ANN401 - the driver's own
        if self._text is None:
            # Names in the text, since the same value is often wanted in several places.
            kind: Any = type(connection.dialect)
            dialect = kind(paramstyle="named")
            dialect.statement_compiler = connection.dialect.statement_compiler
            compiled = self._statement.compile(dialect=dialect, column_keys=list(values))
            self._constants = {name: value for name, value in compiled.params.items() if name not in values}
            self._text = compiled.string
        driver: Any = connection.connection.dbapi_connection
        return driver.execute(self._text, self._constants | values)
