# SPDX-License-Identifier: Apache-2.0
"""Statements about the tree: each a merge of a few ranges of indexes, one per shelf (see `schema`).

Answers for what a looker sees as ranges of indexes, and for the forms that databases want them in. An image's folder is
a column, its path with a slash at the end; so everything below a folder is one range of an index, and the folders in it
are found by leaping from one to the next. Runs nothing.

Threading: statements are built once for each shape of a view and shared; building one twice does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
)

from glancefs.registries.database import Ways
from glancefs.registries.folders import Outline, View
from glancefs.registries.rows import IMAGE_COLUMNS, Shelf
from glancefs.registries.schema import folders, images
from glancefs.registries.server_schema import key_column, leaf_column, leaf_expression
from glancefs.registries.sql_pulse import Straight
from glancefs.registries.texts import LONGEST_KEY, SHARED, Key, RawKey

STEPS: Final = 64
"""How many paths are looked at before the next leap, where every leap is a statement."""

FOLDER_COLUMNS: Final = tuple(folders.c)

OUTLINE_COLUMNS: Final = tuple(images.c[name] for name in Outline._fields)

Page: TypeAlias = Select[Any] | CompoundSelect[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A range of paths that an index holds side by side."""

    table: Table
    condition: ColumnElement[bool]
    index: str

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Select from it, by its index."""
        statement = select(*columns).select_from(self.table).where(self.condition)
        return statement.with_hint(self.table, f"FORCE INDEX ({self.index})", "mysql")


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a view, and of the database's ways, that decides the text of its statements."""

    ways: Ways
    is_known: bool
    sees_all: bool

    def others(self) -> Sequence[Part]:
        """Give the ranges of what is visible whoever owns it."""
        shelves = Shelf if self.sees_all else (Shelf.LISTED,)
        return [Part(images, images.c.shelf == shelf.value, "ix_images_shelf_folder") for shelf in shelves]

    def own(self) -> Sequence[Part]:
        """Give the ranges of what is the looker's."""
        return [_own_arm(shelf) for shelf in Shelf] if self.is_known else []

    def arms(self) -> Sequence[Part]:
        """Cut what is visible into ranges that do not overlap."""
        if self.sees_all or not self.is_known:
            return self.others()
        return [*self.others(), *(_own_arm(shelf) for shelf in Shelf if shelf is not Shelf.LISTED)]

    def made(self) -> ColumnElement[bool]:
        """Give what the visible hand-made folders have in common."""
        mine = [] if self.sees_all else [folders.c.owner == bindparam("viewer")]
        return and_(folders.c.removed_at.is_(None), *mine)

    def parts(self) -> Iterator[Part]:
        """Give every range of paths that shows folders."""
        yield from self.arms()
        yield Part(folders, self.made(), "ix_folders_path" if self.sees_all else "ix_folders_owner_path")

    def in_folder(self) -> ColumnElement[bool]:
        """Say that an image is right in the wanted folder."""
        if self.ways.has_keys:
            return key_column(images, "folder") == bindparam("folder", type_=Key())
        return images.c.folder == bindparam("folder")

    def leaf(self) -> ColumnElement[Any]:
        """Give what the images of one folder are ordered by."""
        return leaf_column(images) if self.ways.has_keys else images.c.name

    def is_named(self) -> ColumnElement[bool]:
        """Say that an image has the wanted name."""
        if self.ways.has_keys:
            name = bindparam("name", type_=images.c.name.type)
            leaf = leaf_expression(name, bindparam("folder_text", type_=images.c.folder.type))
            return and_(self.in_folder(), leaf_column(images) == leaf)
        return and_(images.c.folder == bindparam("folder"), images.c.name == bindparam("name"))

    def begins(self, table: Table, *, below: bool = False) -> ColumnElement[bool]:
        """Say that a path is in the wanted range; with ``below``, that a folder is not the one that begins it."""
        column = _path_column(table)
        start, stop = bindparam("start", type_=column.type), bindparam("stop", type_=column.type)
        begins = column > start if below and table is folders else column >= start
        if not self.ways.has_keys:
            return and_(begins, column < stop)
        key = _key_column(table)
        start_key, stop_key = bindparam("start_key", type_=RawKey()), bindparam("stop_key", type_=RawKey())
        return and_(key >= start_key, key < stop_key, begins, column < stop)


def shape_of(view: View, ways: Ways) -> Shape:
    """Give the shape of a view on a database."""
    return Shape(ways, view.viewer is not None, view.sees_all)


def _own_arm(shelf: Shelf) -> Part:
    condition = and_(images.c.owner == bindparam("viewer"), images.c.shelf == shelf.value)
    return Part(images, condition, "ix_images_owner_shelf_folder")


@cache
def page_statement(shape: Shape, *, goes_on: bool) -> Page:
    """Give one page of the images right in a folder, in the order of their leaves."""
    return _page(shape, IMAGE_COLUMNS, goes_on=goes_on)


@cache
def outlines_statement(shape: Shape, *, goes_on: bool) -> Straight:
    """Give the same page, as much of it as a listing tells."""
    return Straight(_page(shape, OUTLINE_COLUMNS, goes_on=goes_on))


def _page(shape: Shape, columns: Sequence[ColumnElement[Any]], *, goes_on: bool) -> Page:
    leaf = shape.leaf()
    marker = bindparam("after_leaf", type_=leaf.type), bindparam("after_place", type_=images.c.place.type)
    behind = shape.ways.behind((leaf, images.c.place), marker) if goes_on else [true()]
    arms = [
        arm.select(*columns, images.c.place, leaf.label("leaf")).where(shape.in_folder(), piece)
        for arm in shape.arms()
        for piece in behind
    ]
    if not shape.ways.merges:
        ordered = [arm.order_by(leaf, images.c.place).limit(bindparam("limit")) for arm in arms]
        arms = [select(arm.subquery()) for arm in ordered]
    page = arms[0] if len(arms) == 1 else union_all(*arms)
    return page.order_by(literal_column("leaf"), literal_column("place")).limit(bindparam("limit"))


@cache
def named_statement(shape: Shape) -> Straight:
    """Give the image that a name means, and up to one more from every range: it has the least rank, then place.

    To have the database put these few in order would cost ten times as much as finding them.
    """
    return Straight(_named(shape))


def _named(shape: Shape) -> CompoundSelect[Any]:
    firsts = [
        arm.select(*IMAGE_COLUMNS, images.c.place, literal(rank).label("rank"))
        .where(shape.is_named())
        .order_by(images.c.place)
        .limit(1)
        .subquery()
        for rank, arms in enumerate((shape.own(), shape.others()))
        for arm in arms
    ]
    return union_all(*(select(first) for first in firsts))


@cache
def at_statement(shape: Shape) -> Straight:
    """Give the same, or else one empty row, and say in each whether there is anything in the folder of that path."""
    found = _named(shape).subquery()
    is_there = or_(*(exists(part.select(literal(1)).where(shape.begins(part.table))) for part in shape.parts()))
    always = select(literal(1)).subquery()
    return Straight(select(*found.c, is_there.label("is_there")).select_from(always.outerjoin(found, true())))


@cache
def there_statement(shape: Shape, *, below: bool) -> CompoundSelect[Any]:
    """Give a row where there is anything in a folder, or (unless ``below``) the folder is hand-made."""
    found = [part.select(literal(1)).where(shape.begins(part.table, below=below)).limit(1) for part in shape.parts()]
    return union_all(*(select(one.subquery()) for one in found))


@cache
def before_statement(shape: Shape) -> CompoundSelect[Any]:
    """Give a row where one of the looker's own images of the wanted name comes before a place."""
    found = [
        part.select(literal(1)).where(shape.is_named(), images.c.place < bindparam("before_place")).limit(1)
        for part in shape.own()
    ]
    return union_all(*(select(one.subquery()) for one in found))


@cache
def leap_statements(shape: Shape) -> Sequence[Select[Any]]:
    """Give, for every range of paths, what finds the folders right below another."""
    return [_leaps(part) for part in shape.parts()]


@cache
def step_statements(shape: Shape, part: int, *, is_deep: bool) -> Select[Any]:
    """Give the next paths of a range: some, in the order of their keys, or all of them, where those have no order."""
    of = list(shape.parts())[part]
    column, key = _path_column(of.table), _key_column(of.table)
    statement = of.select(column).where(shape.begins(of.table))
    return statement.distinct().order_by(column) if is_deep else statement.order_by(key).limit(STEPS)


def _path_column(table: Table) -> ColumnElement[str]:
    return images.c.folder if table is images else folders.c.path


def _key_column(table: Table) -> ColumnElement[str]:
    return key_column(table, "folder" if table is images else "path")


def range_of(key: str) -> dict[str, str]:
    """Give where the paths of everything below a folder begin and end in an index; the folder's own path begins it."""
    return bounds_of(key, stop_of(key))


def bounds_of(start: str, stop: str) -> dict[str, str]:
    """Give a range of paths, and what their keys are between; both ends share what comes before their last letters."""
    long = len(stop) > SHARED
    stop_key = start[:SHARED] + "\U0010ffff" * (LONGEST_KEY - SHARED + 1) if long else stop
    return {"start": start, "stop": stop, "start_key": start[:SHARED], "stop_key": stop_key}


def stop_of(key: str) -> str:
    """Give the first text behind all that begin with a folder's path: "0" comes right behind "/" in every encoding."""
    # The root's ends behind everything: no file name has this many of the last code point.
    return f"{key[:-1]}0" if key else "\U0010ffff" * 64


def _leaps(part: Part) -> Select[Any]:
    """Find one path in each folder right below another, leaping from each over all that begins the same way."""
    column = _path_column(part.table)
    in_range = (part.condition, column < bindparam("stop"))
    first = select(column).where(*in_range, column >= bindparam("start"), func.length(column) > bindparam("width"))
    leaps = select(first.order_by(column).limit(1).scalar_subquery().label("path")).cte("leaps", recursive=True)
    rest = func.substr(leaps.c.path, bindparam("width") + 1)
    folder = func.substr(leaps.c.path, 1, bindparam("width") + func.instr(rest, "/") - 1)
    following = select(column).where(*in_range, column >= folder.op("||")(cast(literal("0"), Text)))
    leaps = leaps.union_all(
        select(following.order_by(column).limit(1).correlate(leaps).scalar_subquery()).where(leaps.c.path.is_not(None))
    )
    return select(leaps.c.path).where(leaps.c.path.is_not(None)).limit(bindparam("limit"))


@cache
def made_statement(shape: Shape) -> Select[Any]:
    """Give the visible hand-made folders at some paths."""
    keys = bindparam("keys", expanding=True, type_=Key() if shape.ways.has_keys else folders.c.path.type)
    column = key_column(folders, "path") if shape.ways.has_keys else folders.c.path
    return select(*FOLDER_COLUMNS).where(column.in_(keys), shape.made())


@cache
def first_statement(shape: Shape) -> Select[Any]:
    """Leave those of some images before which no other one of the same name comes."""
    other = images.alias("other")
    same_name = and_(other.c.folder == images.c.folder, other.c.name == images.c.name)
    if shape.ways.has_keys:
        same_folder = key_column(other, "folder") == key_column(images, "folder")
        same_name = and_(same_folder, leaf_column(other) == leaf_column(images))
    is_own = images.c.owner == bindparam("viewer")
    earlier = other.c.place < images.c.place
    not_own = images.c.owner.is_distinct_from(bindparam("viewer"))

    def is_there(shelf: Shelf, index: str, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        # One for each shelf: not every database leaps from one to the next for what is looked up row by row.
        found = select(literal(1)).select_from(other).where(other.c.shelf == shelf.value, same_name, *conditions)
        return exists(found.with_hint(other, f"FORCE INDEX ({index})", "mysql").correlate(images))

    mine = other.c.owner == bindparam("viewer")
    own_before = or_(*(is_there(shelf, "ix_images_owner_shelf_folder", mine, or_(not_own, earlier)) for shelf in Shelf))
    shelves = Shelf if shape.sees_all else (Shelf.LISTED,)
    other_before = or_(*(is_there(shelf, "ix_images_shelf_folder", earlier) for shelf in shelves))
    wanted = images.c.id.in_(bindparam("ids", expanding=True))
    return select(images.c.id).where(wanted, ~own_before, or_(is_own, ~other_before))
