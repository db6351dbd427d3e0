# SPDX-License-Identifier: Apache-2.0
"""The query of a list's URL, read into an `ImageQuery`.

Answers for the names and forms of filters, sorting and paging (seed checklist, statements 5 and 8). Parameters that are
not known are ignored, as unknown headers are. What the caller may see is not decided here.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gateway.rest.dialect import Dialect
from gateway.wsgi import Request
from glancefs.errors import InvalidQuery
from glancefs.headers import read_boolean
from glancefs.model import MAX_NUMBER, ImageStatus, image_type, property_key
from glancefs.registries.base import ImageQuery, SortDirection, SortKey

_PROPERTY: Final = "property-"
_TEXTS: Final = frozenset({"name", "disk_format", "container_format", "owner", "store", "marker"})
_NUMBERS: Final = frozenset({"size_min", "size_max", "limit"})
_LONGEST_NUMBER: Final = 19

# A plus sign in a query means a space, so a zone of +01:00 that nobody escaped arrives like this.
_SPACED_ZONE = re.compile(r"(.*T.*) (\d\d:?\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """Which images a list is to hold."""

    query: ImageQuery
    limit: int | None
    """How many at the most; None: everything."""


def list_request(request: Request, dialect: Dialect) -> ListRequest:
    """Read the query of a list. Raises InvalidQuery, InvalidImage for a value that its filter can't have."""
    said: dict[str, Any] = {"is_public": None if dialect.lists_all else True}
    properties: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in request.parameters():
        if name in seen:
            message = f"{name[:80]!r} is there twice."
            raise InvalidQuery(message)
        seen.add(name)
        if name.startswith(_PROPERTY):
            properties[property_key(name.removeprefix(_PROPERTY))] = value
        else:
            said |= _parameter(name, value, dialect)
    limit = said.pop("limit", None)
    return ListRequest(query=ImageQuery(**said, properties=properties), limit=limit)


def read_time(text: str) -> datetime:
    """Read a time as this API writes it, or any of ISO 8601; without a zone it is UTC. Raises InvalidQuery."""
    spaced = _SPACED_ZONE.fullmatch(text)
    try:
        time = datetime.fromisoformat(f"{spaced[1]}+{spaced[2]}" if spaced else text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{text[:80]!r} is not a time; 2010-02-03 09:34:01 is one, in UTC."
        raise InvalidQuery(message) from None
    # Times of images are whole seconds; a fraction would hide what changed in this very second.
    return time.replace(microsecond=0)


def _parameter(name: str, value: str, dialect: Dialect) -> dict[str, Any]:
    if name in _TEXTS:
        return {name: value}
    if name in _NUMBERS:
        return {name: _number(name, value)}
    field, read = _WORDS.get(name, (None, None))
    return {} if field is None or read is None else {field: read(value, dialect)}


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > _LONGEST_NUMBER or int(value) > MAX_NUMBER:
        message = f"{value[:80]!r} can't be the {name}: a whole number from 0 to {MAX_NUMBER}."
        raise InvalidQuery(message)
    return int(value)


def _status(word: str, dialect: Dialect) -> ImageStatus:
    status = dialect.status_named(word)
    if status is None:
        words = ", ".join(dialect.status_word(status) for status in ImageStatus)
        message = f"{word[:80]!r} is not a status; there are {words}."
        raise InvalidQuery(message)
    return status


def _sort_key(word: str) -> SortKey:
    try:
        return SortKey(word)
    except ValueError:
        message = f"Nothing can be sorted by {word[:80]!r}; there are {', '.join(SortKey)}."
        raise InvalidQuery(message) from None


def _sort_direction(word: str) -> SortDirection:
    try:
        return SortDirection(word)
    except ValueError:
        message = f"{word[:80]!r} is no direction to sort in; there are {', '.join(SortDirection)}."
        raise InvalidQuery(message) from None


def _visibility(value: str, _: Dialect) -> bool | None:
    # The word none asks for both here, where a header that says it means false.
    return None if value.lower() == "none" else read_boolean(value, field="is_public")


_WORDS: Final[Mapping[str, tuple[str, Callable[[str, Dialect], object]]]] = {
    "is_public": ("is_public", _visibility),
    "type": ("type", lambda value, _: image_type(value)),
    "status": ("status", _status),
    "changes-since": ("changed_since", lambda value, _: read_time(value)),
    "sort_key": ("sort_key", lambda value, _: _sort_key(value)),
    "sort_dir": ("sort_direction", lambda value, _: _sort_direction(value)),
}
"""Which field of a query a parameter means, and how it is read."""
