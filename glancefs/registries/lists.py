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
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    select,
    union_all,
)

from glancefs.errors import InvalidQuery
from glancefs.model import MAX_NUMBER, Image, ImageStatus
from glancefs.registries.base import ImageQuery, SortDirection, SortKey
from glancefs.registries.database import Ways
from glancefs.registries.rows import IMAGE_COLUMNS, Grave, Shelf, image_of, property_digest, seconds
from glancefs.registries.schema import (
    SEQ_INDEX,
    SORTED_BY,
    grave_index,
    image_properties,
    images,
    shelf_index,
)
from glancefs.registries.server_schema import key_column
from glancefs.registries.texts import Key

_FEW: Final = 1000
"""Up to so many images with what a filter wants are looked up and sorted; more of them are soon met by walking."""

_MOST_STATEMENTS: Final = 500
"""How many are kept: only somebody who tries asks queries of so many shapes."""

_EQUALITIES: Final = ("name", "type", "status", "disk_format", "container_format", "store")
"""Filters that want one value of a column."""

_DRIVERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "name": frozenset({"name"}),
        "updated_at": frozenset({"changed_since"}),
        "size": frozenset({"size_min", "size_max"}),
    }
)
"""Columns whose index can answer filters, and those filters."""

_LIMIT: Final = bindparam("limit", type_=BigInteger)

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

    ways: Ways
    ranges: tuple[tuple[bool, bool], ...]
    """Of each range, whether it is of tombstones, and whether it is of one owner."""
    sort_key: str
    descending: bool
    goes_on: bool
    filters: frozenset[str]
    properties: int
    drivers: tuple[str | None, ...] = ()
    """Of each range, the filter whose index is read instead of the one that has the order."""


class Lists:
    """Finds pages. One per registry: it keeps the statements."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
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
            ways=self._ways,
            ranges=tuple((isinstance(range_.place, Grave), range_.owner is not None) for range_ in ranges),
            sort_key=str(query.sort_key),
            descending=query.sort_direction is SortDirection.DESCENDING,
            goes_on=bool(after),
            filters=frozenset(filters),
            properties=len(query.properties),
        )
        shape = replace(shape, drivers=self._drivers(connection, shape, values))
        return self._kept(shape, _page_statement, shape), values

    def _after(self, connection: Connection, query: ImageQuery) -> dict[str, Any]:
        """Give the marker's place in the order."""
        statement = self._kept(query.sort_key, _place_statement, query.sort_key, self._ways)
        row = connection.execute(statement, {"marker": query.marker}).one_or_none()
        if row is None:
            raise InvalidQuery(f"The marker {query.marker!r} names no image.")
        return {"after_value": row[0], "after_seq": row[1]}

    def _drivers(self, connection: Connection, shape: _Shape, values: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Choose, for each range, a filter that so few pass that sorting those is cheaper than walking past others."""
        for number in range(shape.properties):
            name = f"property_{number}"
            statement = self._kept(name, _property_count, name)
            if connection.execute(statement, values).scalar_one() < _FEW:
                return (name,) * len(shape.ranges)
        return tuple(self._driver(connection, shape, number, values) for number in range(len(shape.ranges)))

    def _driver(self, connection: Connection, shape: _Shape, number: int, values: Mapping[str, Any]) -> str | None:
        dead, owned = shape.ranges[number]
        for driver in _drivers_of(shape, dead=dead):
            filters = shape.filters & _DRIVERS[driver]
            key = driver, filters, number
            statement = self._kept((*key, dead, owned), _range_count, shape, *key)
            if connection.execute(statement, values).scalar_one() < _FEW:
                return driver
        return None

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
    parts = [_part(shape, number) for number in range(len(shape.ranges))]
    if not shape.ways.merges:
        drivers = zip(parts, shape.drivers, strict=True)
        parts = [_first_of(shape, part, is_sorted=driver is None) for part, driver in drivers]
    page = parts[0] if len(parts) == 1 else union_all(*parts)
    return page.order_by(*_order(shape, literal_column("sort_value"), literal_column("sort_seq"))).limit(_LIMIT)


def _first_of(shape: _Shape, part: Select[*tuple[Any, ...]], *, is_sorted: bool) -> Select[*tuple[Any, ...]]:
    """Say how much of a range the page takes at the most."""
    order = _order(shape, literal_column("sort_value"), literal_column("sort_seq"))
    if shape.ways.needs_fence and not is_sorted:
        # Whoever offers an order to PostgreSQL has its index walked, however few there are to be found.
        part = select(part.offset(literal_column("0")).subquery())
    return select(part.order_by(*order).limit(_LIMIT).subquery())


def _part(shape: _Shape, number: int) -> Select[*tuple[Any, ...]]:
    """Select from one range what comes behind the marker and passes the filters, by the index that serves it best."""
    (dead, owned), driver = shape.ranges[number], shape.drivers[number]
    value = _sort_value(shape.sort_key, shape.ways)
    by_property = driver is not None and driver.startswith("property")
    index = SEQ_INDEX if by_property else _index(shape.sort_key, driver, dead=dead, owned=owned)
    conditions = [_is_in_range(number, dead=dead, owned=owned)]
    conditions += [_passes(name, shape.ways, dead=dead) for name in sorted(shape.filters)]
    for found in range(shape.properties):
        name = f"property_{found}"
        conditions.append(_has_property(name, shape.ways, leads=name == driver))
    if shape.goes_on:
        conditions.append(_is_behind(shape, value))
    selected = select(*IMAGE_COLUMNS, value.label("sort_value"), images.c.seq.label("sort_seq"))
    in_order = shape.sort_key == "created_at" if dead else shape.sort_key in SORTED_BY
    if driver is None and not in_order:
        # Whole rows are fetched for those alone that come out first; the others are sorted by what the index holds.
        narrow = _hinted(select(images.c.seq).where(*conditions), index)
        first = narrow.order_by(*_order(shape, value, images.c.seq)).limit(_LIMIT)
        if shape.ways.merges:
            return _hinted(selected.where(images.c.seq.in_(first)), SEQ_INDEX)
        wanted = first.subquery()
        return selected.join_from(images, wanted, images.c.seq == wanted.c.seq)
    return _hinted(selected.where(*conditions), index)


def _is_behind(shape: _Shape, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Say that an image comes behind the marker."""
    there = bindparam("after_value", type_=value.type), bindparam("after_seq", type_=BigInteger)
    return shape.ways.is_behind((value, images.c.seq), there, descending=shape.descending)


def _order(shape: _Shape, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if shape.descending else column.asc() for column in columns]


def _drivers_of(shape: _Shape, *, dead: bool) -> Iterator[str]:
    """Give the filters that an index other than the one with the order can answer."""
    for driver, filters in _DRIVERS.items():
        if shape.filters & filters and driver != shape.sort_key and (not dead or driver == "updated_at"):
            yield driver


def _index(sort_key: str, driver: str | None, *, dead: bool, owned: bool) -> str:
    if dead:
        return grave_index("created_at" if driver is None and sort_key == "created_at" else "changed_at")
    column = driver or sort_key
    return shelf_index(column if column in SORTED_BY else "created_at", owned=owned)


def _hinted(statement: Select[*tuple[Any, ...]], index: str) -> Select[*tuple[Any, ...]]:
    hinted = statement.with_hint(images, f"INDEXED BY {index}", "sqlite")
    return hinted.with_hint(images, f"FORCE INDEX ({index})", "mysql")


def _is_in_range(number: int, *, dead: bool, owned: bool) -> ColumnElement[bool]:
    in_place = (images.c.grave if dead else images.c.shelf) == bindparam(f"place_{number}")
    return and_(images.c.owner == bindparam(f"owner_{number}"), in_place) if owned else in_place


def _passes(name: str, ways: Ways, *, dead: bool) -> ColumnElement[bool]:
    if name == "name" and ways.has_keys:
        return key_column(images, "name") == bindparam(name, type_=Key())
    if name == "size_min":
        return images.c.size >= bindparam(name)
    if name == "size_max":
        return images.c.size <= bindparam(name)
    if name == "changed_since":
        return (images.c.changed_at if dead else images.c.updated_at) >= bindparam(name)
    return images.c[name] == bindparam(name)


def _has_property(name: str, ways: Ways, *, leads: bool) -> ColumnElement[bool]:
    with_it = select(image_properties.c.seq).where(image_properties.c.digest == bindparam(name))
    if leads:
        return images.c.seq.in_(with_it)
    its_own = with_it.where(image_properties.c.seq == images.c.seq).correlate(images)
    # Nor may the looking begin with all that have the property.
    return exists(its_own.offset(literal_column("0")) if ways.needs_fence else its_own)


def _sort_value(sort_key: str, ways: Ways) -> ColumnElement[Any]:
    """Give what a list is sorted by: an unset value comes before all others."""
    if sort_key == "name" and ways.has_keys:
        return key_column(images, "name")
    column: ColumnElement[Any] = images.c[sort_key]
    return func.coalesce(column, "") if images.c[sort_key].nullable else column


def _place_statement(sort_key: SortKey, ways: Ways) -> Select[Any]:
    return select(_sort_value(str(sort_key), ways), images.c.seq).where(images.c.id == bindparam("marker"))


def _property_count(name: str) -> _Statement:
    return _counted(select(literal_column("1")).where(image_properties.c.digest == bindparam(name)))


def _range_count(shape: _Shape, driver: str, filters: frozenset[str], number: int) -> _Statement:
    dead, owned = shape.ranges[number]
    conditions = [_passes(name, shape.ways, dead=dead) for name in sorted(filters)]
    one: Select[*tuple[Any, ...]] = select(literal_column("1")).where(
        _is_in_range(number, dead=dead, owned=owned), *conditions
    )
    return _counted(_hinted(one, _index(driver, driver, dead=dead, owned=owned)))


def _counted(statement: Select[*tuple[Any, ...]]) -> _Statement:
    return select(func.count()).select_from(statement.limit(_FEW).subquery())
