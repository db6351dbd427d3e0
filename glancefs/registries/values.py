# SPDX-License-Identifier: Apache-2.0
"""What registries speak in, as JSON and back: both ends of a remote registry read and write by the same types.

Answers for the form of every value (`docs/reference/registry.md`): objects with the fields' names, times as
``YYYY-MM-DD HH:MM:SS`` in UTC, locations as ``STORE:KEY``, enumerations by their values, mappings of other things than
texts as lists of pairs, named tuples of plain values as lists; what is to stay as it is is not said. Reading is strict:
a field that is missing or of another type is an error, never a guess. So is an unknown one, but in what a later version
says to an earlier one. Whether a value makes sense, it does not know.

Threading: pure functions; readers are built once for each type and kept.
"""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from glancefs.errors import InvalidRequest
from glancefs.model import UNSET, Location

Reader = Callable[[object], Any]
"""Makes a value of what JSON gave. Raises InvalidRequest for what can't be one."""


_PAIR: Final = 2
_TIME_LENGTH: Final = len("2010-02-03 09:34:01")
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def to_json(value: object, *, is_brief: bool = False) -> Any:  # noqa: ANN401, PLR0911 - JSON is anything, and each kind has its line
    """Give a value as what `json` writes; if ``is_brief``, without fields that are what they are when nobody says."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(" ", "seconds")[:_TIME_LENGTH]
    if isinstance(value, Location):
        return str(value)
    if is_dataclass(value):
        return _object_to_json(value, is_brief=is_brief)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value)
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(one, is_brief=is_brief) for key, one in value.items()}
        return [[to_json(one, is_brief=is_brief) for one in pair] for pair in value.items()]
    if isinstance(value, Collection):
        return [to_json(one, is_brief=is_brief) for one in value]
    message = f"A registry does not speak in {type(value).__name__}."
    raise TypeError(message)


def _object_to_json(value: object, *, is_brief: bool) -> dict[str, Any]:
    said: dict[str, Any] = {}
    kind: Any = type(value)
    for name, default in _defaults(kind):
        one = getattr(value, name)
        if one is UNSET or (is_brief and one == default):
            continue
        # Most fields are what they are in JSON: lists of thousands of images are made of them.
        said[name] = one if type(one) in _PLAIN else to_json(one, is_brief=is_brief)
    return said


@cache
def _defaults(kind: type[Any]) -> tuple[tuple[str, object], ...]:
    """Give the fields of a class, and what each is when nobody says; `MISSING` for those that must be said."""
    return tuple(
        (field.name, field.default if field.default_factory is MISSING else field.default_factory())
        for field in fields(kind)
    )


@cache
def reader_of(kind: Any, *, is_lenient: bool = False) -> Reader:  # noqa: ANN401 - a type, or what `typing` makes of types
    """Give what reads values of a type; where ``is_lenient``, unknown fields of objects are passed over.

    Raises TypeError for a type that no registry speaks in.
    """
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_reader(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _object_reader(kind, is_lenient=is_lenient)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_make"):
        return _row_reader(kind)
    return _compound_reader(kind, is_lenient=is_lenient)


def fields_reader(
    readers: Mapping[str, Reader], *, required: Collection[str], name: str, is_lenient: bool = False
) -> Reader:
    """Give what reads an object of these fields into a dictionary; those that are not required may be missing."""
    wanted = frozenset(required)

    def read(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _not_a(name)
        if not is_lenient and (unknown := value.keys() - readers.keys()):
            raise InvalidRequest(f"{name} has no field {min(unknown)[:80]!r}.")
        if missing := wanted - value.keys():
            raise InvalidRequest(f"{name} lacks the field {min(missing)!r}.")
        return {field: read_one(value[field]) for field, read_one in readers.items() if field in value}

    return read


def _compound_reader(kind: Any, *, is_lenient: bool) -> Reader:  # noqa: ANN401 - what `typing` makes of types
    origin = get_origin(kind)
    inner = [reader_of(one, is_lenient=is_lenient) for one in get_args(kind) if one is not Ellipsis]
    if origin in {Union, types.UnionType}:
        return _union_reader(inner)
    if origin is collections.abc.Mapping:
        return _mapping_reader(inner[1]) if get_args(kind)[0] is str else _pairs_reader(*inner)
    if origin in _LISTS:
        return _list_reader(inner[0], _LISTS[origin])
    message = f"A registry does not speak in {kind}."
    raise TypeError(message)


def _not_a(name: str) -> InvalidRequest:
    return InvalidRequest(f"Where {name} is expected there is something else.")


def _plain_reader(kind: type, name: str) -> Reader:
    def read(value: object) -> object:
        # True is an int to Python, and 1.0 equals 1; neither is meant.
        if type(value) is not kind:
            raise _not_a(name)
        return value

    return read


def _read_none(value: object) -> None:
    if value is not None:
        raise _not_a("nothing")


def _read_time(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]  # what is no text is a TypeError
    except (TypeError, ValueError):
        raise _not_a("a time") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _read_location(value: object) -> Location:
    if not isinstance(value, str) or ":" not in value:
        raise _not_a("a location")
    return Location.parse(value)


def _enum_reader(kind: type[Enum]) -> Reader:
    def read(value: object) -> Enum:
        try:
            return kind(value)
        except ValueError:
            raise _not_a(f"one of {', '.join(str(one.value) for one in kind)}") from None

    return read


def _object_reader(kind: type[Any], *, is_lenient: bool) -> Reader:
    hints = get_type_hints(kind)
    known = fields(kind)
    required = [one.name for one in known if one.default is MISSING and one.default_factory is MISSING]
    read_fields = fields_reader(
        {one.name: reader_of(hints[one.name], is_lenient=is_lenient) for one in known},
        required=required,
        name=kind.__name__,
        is_lenient=is_lenient,
    )

    def read(value: object) -> object:
        return kind(**read_fields(value))

    return read


def _row_reader(kind: type[Any]) -> Reader:
    """Give what reads a named tuple of plain values; a listing has one of them for each image."""
    hints = get_type_hints(kind)
    wanted = [frozenset(get_args(hints[name]) or {hints[name]}) for name in kind._fields]

    def read(value: object) -> object:
        if not isinstance(value, list) or len(value) != len(wanted):
            raise _not_a(kind.__name__)
        # True is an int to Python; it is not meant where a number is.
        if not all(type(one) in types_ for one, types_ in zip(value, wanted, strict=True)):
            raise _not_a(kind.__name__)
        return kind(*value)

    return read


def _union_reader(every: Sequence[Reader]) -> Reader:
    may_be_none = _read_none in every
    readers = [one for one in every if one is not _read_none]

    def read(value: object) -> object:
        # Told apart at once: to try the others first costs an error each time.
        if value is None and may_be_none:
            return None
        failure: InvalidRequest | None = None
        for one in readers:
            try:
                return one(value)
            except InvalidRequest as error:
                # Of a value or nothing, what is wrong with the value is worth telling.
                failure = failure or error
        raise failure or _not_a("a value")

    return read


def _mapping_reader(read_value: Reader) -> Reader:
    def read(value: object) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise _not_a("an object")
        return types.MappingProxyType({key: read_value(one) for key, one in value.items()})

    return read


def _pairs_reader(read_key: Reader, read_value: Reader) -> Reader:
    def read(value: object) -> Mapping[Any, Any]:
        pairs = [] if value == {} else value
        if not isinstance(pairs, list) or any(not isinstance(pair, list) or len(pair) != _PAIR for pair in pairs):
            raise _not_a("a list of pairs")
        return {read_key(key): read_value(one) for key, one in pairs}

    return read


def _list_reader(read_value: Reader, kind: Callable[[list[Any]], Collection[Any]]) -> Reader:
    def read(value: object) -> Collection[Any]:
        if not isinstance(value, list):
            raise _not_a("a list")
        return kind([read_value(one) for one in value])

    return read


_LISTS: Final[Mapping[object, Callable[[list[Any]], Collection[Any]]]] = {
    collections.abc.Sequence: list,
    tuple: tuple,
    collections.abc.Collection: frozenset,
    frozenset: frozenset,
}
"""What a list becomes; where no order is promised, none is kept."""

_SIMPLE: Final[Mapping[object, Reader]] = {
    str: _plain_reader(str, "text"),
    int: _plain_reader(int, "a whole number"),
    bool: _plain_reader(bool, "true or false"),
    types.NoneType: _read_none,
    datetime: _read_time,
    Location: _read_location,
}
