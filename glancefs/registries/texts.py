# SPDX-License-Identifier: Apache-2.0
"""Texts as columns: any text there is, exact to the code point and in the order of code points, in every database.

Answers for three things that databases do in their own ways. *Order and equality* are those of code points: no
language, no case, no blanks that do not count. *What can be kept*: PostgreSQL keeps no NUL, which is escaped there in a
way that leaves the order as it is. *What can be indexed*: a few thousand bytes, fewer than a name may have, so that
databases other than SQLite index a long text by its *key*, which is the text itself nearly always. Knows no tables.

Threading: types are built once, at import, and only read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import md5
from typing import Any, Final

from sqlalchemy import VARBINARY, ColumnElement, Dialect, LargeBinary, Text, TypeDecorator, case, func, literal_column
from sqlalchemy.types import TypeEngine  # noqa: TC002 - SQLAlchemy is loaded anyway

LONGEST_KEY: Final = 340
"""In characters: with an owner before it, the longest that both PostgreSQL (2704 bytes) and MariaDB (3072) index."""

_DIGEST: Final = 32
SHARED: Final = LONGEST_KEY - _DIGEST
"""Up to so many characters keys are in the order of their texts; beyond, only equal texts have equal keys."""

LONGEST_LEAF: Final = 255
"""In bytes of UTF-8, as file names have them."""

COLLATION: Final = "utf8mb4_nopad_bin"
"""MariaDB's order of code points, in which blanks at the end count."""

_Convert = Callable[[Any], Any]


class Kept(TypeDecorator[str]):
    """Text of at the most so many characters; without a number, of any length and not to be indexed."""

    impl = Text
    cache_ok = True

    def __init__(self, longest: int | None = None) -> None:
        super().__init__()
        self.longest = longest

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator.load_dialect_impl`."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_postgresql_text())
        if dialect.name == "mysql":
            return dialect.type_descriptor(_mysql_text(self.longest))
        return dialect.type_descriptor(Text())

    def bind_processor(self, dialect: Dialect) -> _Convert | None:
        """See `TypeEngine.bind_processor`."""
        return {"postgresql": _escaped, "mysql": _checked}.get(dialect.name)

    def result_processor(self, dialect: Dialect, coltype: object) -> _Convert | None:  # noqa: ARG002 - its signature
        """See `TypeEngine.result_processor`."""
        return {"postgresql": _unescaped}.get(dialect.name)


class Key(Kept):
    """A text that is looked for by its key."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(LONGEST_KEY)

    def bind_processor(self, dialect: Dialect) -> _Convert | None:
        """See `TypeEngine.bind_processor`."""
        before = super().bind_processor(dialect)
        return lambda text: key_of(text if before is None else before(text))


class RawKey(Kept):
    """A key as it is in the database."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(LONGEST_KEY)

    def bind_processor(self, dialect: Dialect) -> _Convert | None:  # noqa: ARG002 - its signature
        """See `TypeEngine.bind_processor`."""
        return None

    def result_processor(self, dialect: Dialect, coltype: object) -> _Convert | None:  # noqa: ARG002 - its signature
        """See `TypeEngine.result_processor`."""
        return None


class Leaf(TypeDecorator[str]):
    """What tells the images of one folder apart, in bytes of UTF-8."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator.load_dialect_impl`."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(_postgresql_text())
        return dialect.type_descriptor(VARBINARY(LONGEST_LEAF) if dialect.name == "mysql" else LargeBinary())

    def bind_processor(self, dialect: Dialect) -> _Convert | None:
        """See `TypeEngine.bind_processor`."""
        return (lambda text: None if text is None else text.encode()) if dialect.name == "mysql" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> _Convert | None:  # noqa: ARG002 - its signature
        """See `TypeEngine.result_processor`."""
        return (lambda data: None if data is None else data.decode()) if dialect.name == "mysql" else None


def key_of(text: str | None) -> str | None:
    """Give the key of a text."""
    if text is None or len(text) <= LONGEST_KEY:
        return text
    return text[:SHARED] + md5(text.encode(), usedforsecurity=False).hexdigest()


def key_expression(
    text: ColumnElement[Any], *, longest: int = LONGEST_KEY, is_bytes: bool = False
) -> ColumnElement[Any]:
    """Give the SQL of the key of a text, as `key_of` says it; ``is_bytes``: ``longest`` is in bytes of UTF-8."""
    length = func.octet_length(text) if is_bytes else func.char_length(text)
    shared = (longest - _DIGEST) // 4 if is_bytes else longest - _DIGEST
    digest = func.left(text, literal_column(str(shared)), type_=Text).concat(func.md5(text, type_=Text))
    return case((length <= literal_column(str(longest)), text), else_=digest)


# What SQLAlchemy knows of a server takes a tenth of a second to load: it is when that is the server that is used.
def _postgresql_text() -> TypeEngine[Any]:
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - loaded when it is needed

    return postgresql.TEXT(collation="C")


def _mysql_text(longest: int | None) -> TypeEngine[Any]:
    from sqlalchemy.dialects import mysql  # noqa: PLC0415 - loaded when it is needed

    return mysql.LONGTEXT(collation=COLLATION) if longest is None else mysql.VARCHAR(longest, collation=COLLATION)


def _escaped(text: str | None) -> str | None:
    """Write NUL with what PostgreSQL keeps: texts stay in their order, since both escapes begin with the same."""
    if text is None or ("\0" not in text and "\1" not in text):
        return text
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def _unescaped(text: str | None) -> str | None:
    if text is None or "\1" not in text:
        return text
    return text.replace("\1\1", "\0").replace("\1\2", "\1")


def _checked(text: str | None) -> str | None:
    """Raise UnicodeEncodeError for what is no text: the driver would send it as bytes that are no UTF-8."""
    if text is not None:
        text.encode()
    return text
