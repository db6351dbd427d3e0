# SPDX-License-Identifier: Apache-2.0
"""What the registry asks of a database, whichever it is: connections, transactions, and what its errors mean.

Answers for the `Database` protocol, and for the differences between databases that statements have to know, as data.
Knows no tables.

Threading: as each method says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Connection, MetaData, and_, tuple_

from glancefs.errors import ConfigError, RegistryUnavailable

P = ParamSpec("P")
T = TypeVar("T")

Pair: TypeAlias = tuple[ColumnElement[Any], ColumnElement[Any]]


class ConnectionLost(RegistryUnavailable):
    """The database broke off; on a new connection the same may go well."""

    code = RegistryUnavailable.code


class Contended(RegistryUnavailable):
    """The transaction was undone to let another one through; it may be tried again."""

    code = RegistryUnavailable.code


class OutcomeUnknown(RegistryUnavailable):
    """The database broke off in the middle of a commit: it may have been made or not."""

    code = RegistryUnavailable.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How statements are to be put for a database. The tables are always those of `schema`."""

    has_keys: bool
    """Long texts are indexed by their keys (see `server_schema`)."""
    merges: bool
    """Of ranges that are in order, no more is read than the page takes, though nobody says how much of each."""
    compares_rows: bool
    """``(a, b) > (1, 2)`` is looked up in an index."""
    needs_fence: bool
    """It chooses indexes by what it believes to know, unless the statement leaves it no choice."""
    sorts_bytes: bool
    """It sorts bytes by their order, and texts only nearly so."""
    gives_texts: bool
    """Its driver takes and gives texts and numbers as they are kept."""
    leaps: bool
    """One statement can leap through an index from one folder to the next."""

    def behind(self, here: Pair, there: Pair, *, descending: bool = False) -> Sequence[ColumnElement[bool]]:
        """Say that one pair of columns comes behind another in an order by both: in pieces that index ranges can be.

        Pieces are to be read one by one. In one condition MariaDB reads them as two ranges, and those in the wrong
        order where one text is another and a NUL.
        """
        if self.compares_rows:
            return [tuple_(*here) < tuple_(*there) if descending else tuple_(*here) > tuple_(*there)]
        (first, second), (first_there, second_there) = here, there
        if descending:
            return [and_(first == first_there, second < second_there), first < first_there]
        return [and_(first == first_there, second > second_there), first > first_there]


class Database(Protocol):
    """A database, on which the registry of one process works."""

    @property
    def ways(self) -> Ways:
        """How statements are to be put."""
        ...

    @property
    def metadata(self) -> MetaData:
        """The tables as this database has them."""
        ...

    @property
    def title(self) -> str:
        """What people may be told of where it is; never a password."""
        ...

    def exists(self) -> bool:
        """Tell whether there is a database at all."""
        ...

    def make(self) -> None:
        """Make what can be made of it beforehand; leave what exists as it is. Raises ConfigError."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection for statements that only read. Database errors inside come out translated."""
        ...

    def connect_to_write(self, *, patient: bool = False) -> Connection:
        """Give a connection for `begin_writing`, which is the caller's to close. Raises RegistryUnavailable.

        A ``patient`` one lets statements take as long as they take.
        """
        ...

    def begin_writing(self, connection: Connection) -> None:
        """Begin a transaction. Raises RegistryUnavailable when others write for too long."""
        ...

    def begin_upgrading(self, connection: Connection) -> None:
        """Begin a transaction as the only one that changes the schema."""
        ...

    def end_writing(self, connection: Connection, *, commit: bool) -> None:
        """Commit, or roll back, what was begun."""
        ...

    def news(self) -> Sequence[ColumnElement[object]]:
        """Give what to ask for as the counter is raised, so that those who wait learn of the commit."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until there may be news, or that long."""
        ...

    def translated(self, error: Exception) -> Exception:
        """Give our error for a database's, whose text tells nothing of statements and values; others as they are."""
        ...

    def settle(self) -> None:
        """Let the database look at what its tables hold by now, where it plans by that."""
        ...

    def integrity_check(self, connection: Connection) -> Sequence[str]:
        """Give what is wrong with the database, in its own words."""
        ...

    def set_room_aside(self) -> bool:
        """Keep room for the day when there is none. Gives whether there is any, where that can be done at all."""
        ...

    def give_room(self) -> bool:
        """Give up what was set aside. Gives whether there was anything."""
        ...

    def close(self) -> None:
        """Let go of every connection; may be called twice."""
        ...


def driver_is_missing(kind: str, extra: str) -> ConfigError:
    """Give the error for a database whose driver is not installed."""
    return ConfigError(f"A registry on {kind} needs its driver; `pip install 'glancefs[{extra}]'` installs it.")


def looks_again(look: Callable[P, T]) -> Callable[P, T]:
    """Let a look at the database be repeated once, on a new connection, when the old one broke off."""

    @wraps(look)
    def looking(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return look(*args, **kwargs)
        except ConnectionLost:
            return look(*args, **kwargs)

    return looking
