# SPDX-License-Identifier: Apache-2.0
"""How a page of a list is found: which indexes are read, and where their ranges are merged.

Answers for the cost of `find`: a page is a merge of a few ranges of shelves (see `schema`), each in the wanted order
already, so that nothing is sorted and nothing skipped, whatever the registry holds. A filter thins out what is walked,
unless so few images have what it wants that looking up and sorting those is cheaper.

Threading: statements are built once per shape of query and shared; building one twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    exists,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)

from glancefs.errors import InvalidQuery
from glancefs.model import MAX_NUMBER, Image, ImageStatus
from glancefs.registries.base import ImageQuery, SortDirection, SortKey
from glancefs.registries.rows import IMAGE_COLUMNS, Grave, Shelf, image_of, property_digest, seconds
from glancefs.registries.schema import (
    SEQ_INDEX,
    SORTED_BY,
    grave_index,
    image_properties,
    images,
    shelf_index,
)

_FEW: Final = 1000
"""Up to so many images with what a filter wants are looked up and sorted; more of them are soon met by walking."""

_MOST_STATEMENTS: Final = 500
"""How many are kept: only somebody who tries asks queries of so many shapes."""

_EQUALITIES: Final = ("name", "type", "status", "disk_format", "container_format", "store")
"""Filters that want one value of a column."""

_DRIVERS: Final = {"name": "name", "changed_since": "updated_at", "size_min": "size", "size_max": "size"}
"""Filters that an index of shelves can answer, and the column of that index."""

_EVERYBODYS: Final = frozenset({Shelf.LISTED, Grave.LISTED})
_PRIVATE: Final = frozenset({Shelf.PRIVATE, Shelf.PRIVATE_WITHOUT_DATA, Grave.PRIVATE})

_Statement: TypeAlias = "Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """A part of the images that indexes hold side by side."""

    place: Shelf | Grave
    owner: str | None
    """Whose; None: everybody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """All of a query that decides the text of its statement, and nothing else."""

    ranges: tuple[tuple[bool, bool], ...]
    """Of each range, whether it is of tombstones, and whether it is of one owner."""
    sort_key: str
    descending: bool
    goes_on: bool
    filters: frozenset[str]
    properties: int
    driver: str | None = None
    """The filter whose index is read instead of the one that has the order."""


class Lists:
    """Finds pages. One per registry: it keeps the statements."""

    def __init__(self) -> None:
        self._statements: dict[object, _Statement] = {}

    def page(self, connection: Connection, query: ImageQuery) -> Sequence[Image]:
        """Give one page; see `Registry.find`."""
        prepared = self.prepare(connection, query)
        if prepared is None:
            return ()
        width = len(IMAGE_COLUMNS)
        return [image_of(row[:width]) for row in connection.execute(*prepared)]

    def prepare(self, connection: Connection, query: ImageQuery) -> tuple[_Statement, Mapping[str, Any]] | None:
        """Give the statement that finds a page, and its values; None where there can't be anything to find.

        Raises InvalidQuery for a marker that names no image, and for a negative limit.
        """
        if query.limit < 0:
            raise InvalidQuery(f"{query.limit} can't be the limit of a list.")
        after = {} if query.marker is None else self._after(connection, query)
        ranges = list(_ranges(query))
        if not ranges or not query.limit:
            return None
        filters = _filters(query)
        values = filters | after | {"limit": min(query.limit, MAX_NUMBER)}
        for number, range_ in enumerate(ranges):
            values |= {f"place_{number}": range_.place.value, f"owner_{number}": range_.owner}
        for number, (key, value) in enumerate(query.properties.items()):
            values[f"property_{number}"] = property_digest(key, value)
        shape = _Shape(
            ranges=tuple((isinstance(range_.place, Grave), range_.owner is not None) for range_ in ranges),
            sort_key=str(query.sort_key),
            descending=query.sort_direction is SortDirection.DESCENDING,
            goes_on=bool(after),
            filters=frozenset(filters),
            properties=len(query.properties),
        )
        if shape.filters or shape.properties:
            shape = replace(shape, driver=self._driver(connection, shape, values))
        return self._kept(shape, _page_statement, shape), values

    def _after(self, connection: Connection, query: ImageQuery) -> dict[str, Any]:
        """Give the marker's place in the order."""
        statement = self._kept(query.sort_key, _place_statement, query.sort_key)
        row = connection.execute(statement, {"marker": query.marker}).one_or_none()
        if row is None:
            raise InvalidQuery(f"The marker {query.marker!r} names no image.")
        return {"after_value": row[0], "after_seq": row[1]}

    def _driver(self, connection: Connection, shape: _Shape, values: Mapping[str, Any]) -> str | None:
        """Choose a filter that so few images pass that sorting those is cheaper than walking past the others."""
        for number in range(shape.properties):
            name = f"property_{number}"
            statement = self._kept(name, _property_count, name)
            if connection.execute(statement, values).scalar_one() < _FEW:
                return name
        for name, column in _DRIVERS.items():
            if name in shape.filters and column != shape.sort_key:
                driven = replace(shape, driver=name)
                if self._count(connection, driven, values) < _FEW:
                    return name
        return None

    def _count(self, connection: Connection, shape: _Shape, values: Mapping[str, Any]) -> int:
        """Count the images that the driving filter passes, but not far beyond `_FEW`."""
        found = 0
        for number in range(len(shape.ranges)):
            statement = self._kept((shape, number), _range_count, shape, number)
            found += connection.execute(statement, values).scalar_one()
            if found >= _FEW:
                break
        return found

    def _kept(self, key: object, build: Callable[..., _Statement], *arguments: object) -> _Statement:
        statement = self._statements.get(key)
        if statement is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                self._statements.clear()
            statement = self._statements[key] = build(*arguments)
        return statement


def _ranges(query: ImageQuery) -> Iterator[_Range]:
    """Cut what the query may show into ranges that do not overlap."""
    if (query.size_min or 0) > MAX_NUMBER:
        return
    for place in _places(query):
        if query.is_public not in {None, place not in _PRIVATE}:
            continue
        if query.sees_all or place in _EVERYBODYS:
            yield _Range(place=place, owner=query.owner)
        elif query.viewer is not None and query.owner in {None, query.viewer}:
            yield _Range(place=place, owner=query.viewer)


def _places(query: ImageQuery) -> list[Shelf | Grave]:
    """Give the places where images of the wanted status are."""
    graves: list[Shelf | Grave] = [] if query.changed_since is None else list(Grave)
    match query.status:
        case None:
            return [*Shelf, *graves]
        case ImageStatus.AVAILABLE:
            return [Shelf.LISTED, Shelf.PRIVATE]
        case ImageStatus.DELETED:
            return graves
        case _:
            return [Shelf.PUBLIC_WITHOUT_DATA, Shelf.PRIVATE_WITHOUT_DATA]


def _filters(query: ImageQuery) -> dict[str, Any]:
    """Give the filters that are columns, with their values; those that let everything pass are none."""
    values: dict[str, Any] = {name: str(value) for name in _EQUALITIES if (value := getattr(query, name)) is not None}
    if query.status in {ImageStatus.AVAILABLE, ImageStatus.DELETED}:
        # The places say so already.
        del values["status"]
    if query.size_min is not None and query.size_min > 0:
        values["size_min"] = query.size_min
    if query.size_max is not None and query.size_max < MAX_NUMBER:
        values["size_max"] = max(query.size_max, -1)
    if query.changed_since is not None:
        values["changed_since"] = seconds(query.changed_since)
    return values


def _page_statement(shape: _Shape) -> _Statement:
    parts = []
    order = _sort_value(shape.sort_key)
    for number, (dead, _) in enumerate(shape.ranges):
        part = _range_statement(shape, number).add_columns(order.label("sort_value"), images.c.seq.label("sort_seq"))
        for name in shape.filters:
            part = part.where(_condition(name, dead=dead))
        for found in range(shape.properties):
            part = part.where(_has_property(f"property_{found}", leads=f"property_{found}" == shape.driver))
        if shape.goes_on:
            here = tuple_(order, images.c.seq)
            there = tuple_(bindparam("after_value", type_=order.type), bindparam("after_seq", type_=BigInteger))
            part = part.where(here < there if shape.descending else here > there)
        parts.append(part)
    page = parts[0] if len(parts) == 1 else union_all(*parts)
    columns: list[ColumnElement[Any]] = [literal_column("sort_value"), literal_column("sort_seq")]
    return page.order_by(*(column.desc() if shape.descending else column.asc() for column in columns)).limit(
        bindparam("limit", type_=BigInteger)
    )


def _range_statement(shape: _Shape, number: int) -> Select[Any]:
    """Select one range by the index that serves it best."""
    dead, owned = shape.ranges[number]
    place = images.c.grave if dead else images.c.shelf
    statement = select(*IMAGE_COLUMNS).where(place == bindparam(f"place_{number}"))
    if owned:
        statement = statement.where(images.c.owner == bindparam(f"owner_{number}"))
    index = _index(shape, dead=dead, owned=owned)
    return statement.with_hint(images, f"INDEXED BY {index}", "sqlite")


def _index(shape: _Shape, *, dead: bool, owned: bool) -> str:
    if shape.driver is not None and shape.driver.startswith("property"):
        return SEQ_INDEX
    if dead:
        return grave_index("created_at" if shape.sort_key == "created_at" and shape.driver is None else "changed_at")
    if shape.driver is not None:
        return shelf_index(_DRIVERS[shape.driver], owned=owned)
    return shelf_index(shape.sort_key if shape.sort_key in SORTED_BY else "created_at", owned=owned)


def _condition(name: str, *, dead: bool) -> ColumnElement[bool]:
    if name == "size_min":
        return images.c.size >= bindparam(name)
    if name == "size_max":
        return images.c.size <= bindparam(name)
    if name == "changed_since":
        return (images.c.changed_at if dead else images.c.updated_at) >= bindparam(name)
    return images.c[name] == bindparam(name)


def _has_property(name: str, *, leads: bool) -> ColumnElement[bool]:
    with_it = select(image_properties.c.seq).where(image_properties.c.digest == bindparam(name))
    return images.c.seq.in_(with_it) if leads else exists(with_it.where(image_properties.c.seq == images.c.seq))


def _sort_value(sort_key: str) -> ColumnElement[Any]:
    """Give what a list is sorted by: an unset value comes before all others."""
    column: ColumnElement[Any] = images.c[sort_key]
    return func.coalesce(column, "") if images.c[sort_key].nullable else column


def _place_statement(sort_key: SortKey) -> Select[Any]:
    return select(_sort_value(str(sort_key)), images.c.seq).where(images.c.id == bindparam("marker"))


def _property_count(name: str) -> Select[Any]:
    return _counted(select(literal_column("1")).where(image_properties.c.digest == bindparam(name)))


def _range_count(shape: _Shape, number: int) -> Select[Any]:
    driver = str(shape.driver)
    condition = _condition(driver, dead=shape.ranges[number][0])
    return _counted(_range_statement(shape, number).with_only_columns(literal_column("1")).where(condition))


def _counted(statement: Select[Any]) -> Select[Any]:
    return select(func.count()).select_from(statement.limit(_FEW).subquery())
