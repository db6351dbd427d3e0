# SPDX-License-Identifier: Apache-2.0
"""The tree in the database: folders are runs of indexes, so nothing of it is kept twice.

Answers for `FolderRegistry` over the same tables as `glancefs.registries.sql`. An image's folder is a column, its path
with a slash at the end; so everything below a folder is one range of an index, and the folders in it are found by
leaping from one to the next. Each statement is a merge of a few such ranges, one per shelf (see `schema`).

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)

from glancefs.errors import FolderNotEmpty, Forbidden, InvalidQuery, PathNotFound, PathTaken
from glancefs.model import Image
from glancefs.paths import name_of, path_of
from glancefs.registries.commits import Commits, Transaction
from glancefs.registries.folders import Folder, FolderPage, Found, View
from glancefs.registries.locks import Presented, Touched
from glancefs.registries.rows import IMAGE_COLUMNS, Shelf, folder_key, image_of, seconds
from glancefs.registries.schema import folders, images
from glancefs.registries.sql_dead_properties import move_those_of_folders, remove_those_of_folder
from glancefs.registries.sql_locks import check_unlocked, forget_locks
from glancefs.registries.sql_pulse import fetched, pulse_of
from glancefs.registries.sqlite import SqliteDatabase

_AT_ONCE: Final = 500
"""How many values go into one statement."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_FOLDER_COLUMNS: Final = tuple(folders.c)


_NAME: Final = [column.name for column in IMAGE_COLUMNS].index("name")
_REMEMBERED: Final = 2048
"""How many names' meanings are remembered until the next change."""

_LONG: Final = 2048
"""Of images with longer properties nothing is remembered, in characters."""


class SqlFolders:
    """The tree of a registry that is kept in a database."""

    def __init__(self, *, database: SqliteDatabase, commits: Commits) -> None:
        self._database = database
        self._commits = commits
        self._found: dict[tuple[str, View], tuple[int, Found]] = {}
        """What names meant at which revision."""

    def images_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> FolderPage:
        """See `FolderRegistry.images_in`."""
        if limit <= 0:
            return FolderPage(images=(), marker=after)
        values = {"folder": folder_key(path), "viewer": view.viewer, "limit": limit}
        if after is not None:
            values["after_place"], values["after_name"] = _read_marker(after)
        statement = _page_statement(_shape(view), goes_on=after is not None)
        with self._database.reading() as connection:
            rows = fetched(connection.execute(statement, values))
        marker = f"{rows[-1][-1]}:{rows[-1][_NAME]}" if len(rows) == limit else None
        return FolderPage(images=tuple(image_of(row[:-1]) for row in rows), marker=marker)

    def folders_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> Sequence[Folder]:
        """See `FolderRegistry.folders_in`."""
        key = folder_key(path)
        values = _range(key) | {"viewer": view.viewer, "width": len(key), "limit": max(limit, 0)}
        if after is not None:
            values["start"] = _stop(folder_key(after))
        with self._database.reading() as connection:
            found: set[str] = set()
            for statement in _leap_statements(_shape(view)):
                rows = connection.execute(statement, values).scalars()
                found.update(key + child[len(key) :].split("/", 1)[0] for child in rows)
            # In the order in which they were found, so that the last one says where the next page begins.
            paths = sorted(found, key=folder_key)[: max(limit, 0)]
            return list(_with_rows(connection, paths, view))

    def folder(self, path: str, view: View) -> Folder:
        """See `FolderRegistry.folder`."""
        with self._database.reading() as connection:
            folder = next(_with_rows(connection, [path], view))
            is_there = folder.owner is not None or not path or _is_there(connection, path, view)
        # Outside, since an error inside would cost the connection.
        if not is_there:
            raise PathNotFound.at(path)
        return folder

    def first_named(self, name: str, view: View) -> Image | None:
        """See `FolderRegistry.first_named`."""
        path = path_of(name)
        values = {"viewer": view.viewer, "folder": path[: path.rfind("/") + 1], "name": name}
        with self._database.reading() as connection:
            row = connection.execute(_named_statement(_shape(view)), values).one_or_none()
        return None if row is None else image_of(row[:-2])

    def at(self, name: str, view: View) -> Found:
        """See `FolderRegistry.at`."""
        with self._database.reading() as connection:
            # Read before: what is found then is at least as new, and asked for anew if it is newer.
            revision = pulse_of(connection).revision
            known = self._found.get((name, view))
            if known is not None and known[0] == revision:
                return known[1]
            found = _at(connection, name, view)
        if found.image is not None and sum(map(len, found.image.properties.values())) > _LONG:
            return found
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[name, view] = revision, found
        return found

    def first_of_their_names(self, image_ids: Collection[str], view: View) -> Collection[str]:
        """See `FolderRegistry.first_of_their_names`."""
        ids = list(image_ids)
        first: set[str] = set()
        statement = _first_statement(_shape(view))
        with self._database.reading() as connection:
            for start in range(0, len(ids), _AT_ONCE):
                values = {"ids": ids[start : start + _AT_ONCE], "viewer": view.viewer}
                first.update(connection.execute(statement, values).scalars())
        return first

    def add_folder(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """See `FolderRegistry.add_folder`."""
        return self._commits.run(partial(_make_folder, folder=folder, anew=True, presented=presented))

    def set_folder_mtime(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """See `FolderRegistry.set_folder_mtime`."""
        return self._commits.run(partial(_make_folder, folder=folder, anew=False, presented=presented))

    def remove_folder(self, path: str, view: View, *, removed_at: datetime, presented: Presented | None = None) -> None:
        """See `FolderRegistry.remove_folder`."""
        self._commits.run(partial(_remove_folder, path=path, view=view, removed_at=removed_at, presented=presented))

    def move_folder(
        self, old: str, new: str, view: View, *, moved_at: datetime, presented: Presented | None = None
    ) -> int:
        """See `FolderRegistry.move_folder`."""
        return self._commits.run(
            partial(_move_folder, old=old, new=new, view=view, moved_at=moved_at, presented=presented)
        )


def changed_folders(connection: Connection, *, since: int, limit: int) -> Sequence[Folder]:
    """Give the hand-made folders that changed after a revision, in order, removed ones too."""
    statement = (
        select(*_FOLDER_COLUMNS)
        .where(folders.c.revision > bindparam("since"))
        .order_by(folders.c.revision)
        .limit(bindparam("limit"))
    )
    return [_folder_of(row) for row in connection.execute(statement, {"since": since, "limit": limit})]


# What a looker sees, as ranges of indexes. Statements are built once for each shape of a view.


@dataclass(frozen=True, slots=True)
class _Shape:
    """All of a view that decides the text of its statements."""

    is_known: bool
    sees_all: bool

    def others(self) -> Sequence[ColumnElement[bool]]:
        """Give the ranges of what is visible whoever owns it."""
        return [images.c.shelf == shelf.value for shelf in (Shelf if self.sees_all else (Shelf.LISTED,))]

    def own(self) -> Sequence[ColumnElement[bool]]:
        """Give the ranges of what is the looker's."""
        return [_own_arm(shelf) for shelf in Shelf] if self.is_known else []

    def arms(self) -> Sequence[ColumnElement[bool]]:
        """Cut what is visible into ranges that do not overlap."""
        if self.sees_all or not self.is_known:
            return self.others()
        return [*self.others(), *(_own_arm(shelf) for shelf in Shelf if shelf is not Shelf.LISTED)]

    def made(self) -> ColumnElement[bool]:
        """Give what the visible hand-made folders have in common."""
        mine = [] if self.sees_all else [folders.c.owner == bindparam("viewer")]
        return and_(folders.c.removed_at.is_(None), *mine)

    def places(self) -> Iterator[tuple[Table, ColumnElement[bool]]]:
        """Give every range of paths that shows folders."""
        for arm in self.arms():
            yield images, arm
        yield folders, self.made()


def _shape(view: View) -> _Shape:
    return _Shape(view.viewer is not None, view.sees_all)


def _own_arm(shelf: Shelf) -> ColumnElement[bool]:
    return and_(images.c.owner == bindparam("viewer"), images.c.shelf == shelf.value)


@cache
def _page_statement(shape: _Shape, *, goes_on: bool) -> Select[Any]:
    marker = tuple_(bindparam("after_name"), bindparam("after_place"))
    behind = [tuple_(images.c.name, images.c.place) > marker] if goes_on else []
    arms = [
        select(*IMAGE_COLUMNS, images.c.place)
        .where(arm, images.c.folder == bindparam("folder"), *behind)
        .order_by(images.c.name, images.c.place)
        .limit(bindparam("limit"))
        .subquery()
        for arm in shape.arms()
    ]
    merged = union_all(*(select(arm) for arm in arms)).subquery()
    return select(merged).order_by(merged.c.name, merged.c.place).limit(bindparam("limit"))


@cache
def _named_statement(shape: _Shape) -> Select[Any]:
    named = and_(images.c.folder == bindparam("folder"), images.c.name == bindparam("name"))
    firsts = [
        select(*IMAGE_COLUMNS, images.c.place, literal(rank).label("rank"))
        .where(arm, named)
        .order_by(images.c.place)
        .limit(1)
        .subquery()
        for rank, arms in enumerate((shape.own(), shape.others()))
        for arm in arms
    ]
    merged = union_all(*(select(first) for first in firsts)).subquery()
    return select(merged).order_by(merged.c.rank, merged.c.place).limit(1)


def _at(connection: Connection, name: str, view: View) -> Found:
    path = path_of(name)
    values = {"viewer": view.viewer, "folder": path[: path.rfind("/") + 1], "name": name}
    row = connection.execute(_at_statement(_shape(view)), values | _range(folder_key(path))).one()
    folder = next(_with_rows(connection, [path], view)) if row.is_there else None
    return Found(image=None if row.id is None else image_of(row[: len(IMAGE_COLUMNS)]), folder=folder)


@cache
def _at_statement(shape: _Shape) -> Select[Any]:
    found = _named_statement(shape).subquery()
    is_there = or_(
        *(
            exists(select(literal(1)).where(arm, column >= bindparam("start"), column < bindparam("stop")))
            for column, arm in ((_key_column(table), arm) for table, arm in shape.places())
        )
    )
    always = select(literal(1)).subquery()
    return select(*found.c, is_there.label("is_there")).select_from(always.outerjoin(found, true()))


@cache
def _there_statement(shape: _Shape, *, below: bool) -> CompoundSelect[Any]:
    found = []
    for table, arm in shape.places():
        column = _key_column(table)
        begins = column > bindparam("start") if below and table is folders else column >= bindparam("start")
        statement = select(literal(1)).where(arm, begins, column < bindparam("stop")).limit(1)
        found.append(select(statement.subquery()))
    return union_all(*found)


@cache
def _leap_statements(shape: _Shape) -> Sequence[Select[Any]]:
    return [_leaps(table, arm) for table, arm in shape.places()]


def _key_column(table: Table) -> ColumnElement[str]:
    return images.c.folder if table is images else folders.c.path


def _read_marker(text: str) -> tuple[int, str]:
    place, colon, name = text.partition(":")
    if not colon or not place.isdecimal():
        raise InvalidQuery("The marker is not one of a folder's.")
    return int(place), name


def _range(key: str) -> dict[str, str]:
    """Give where the paths of everything below a folder begin and end in an index; the folder's own path begins it."""
    return {"start": key, "stop": _stop(key)}


def _stop(key: str) -> str:
    """Give the first text behind all that begin with a folder's path: "0" comes right behind "/" in every encoding."""
    # The root's ends behind everything: no file name has this many of the last code point.
    return f"{key[:-1]}0" if key else "\U0010ffff" * 64


def _leaps(table: Table, arm: ColumnElement[bool]) -> Select[Any]:
    """Find one path in each folder right below another, leaping from each over all that begins the same way."""
    column = _key_column(table)
    in_range = (arm, column < bindparam("stop"))
    first = select(column).where(*in_range, column >= bindparam("start"), func.length(column) > bindparam("width"))
    leaps = select(first.order_by(column).limit(1).scalar_subquery().label("path")).cte("leaps", recursive=True)
    rest = func.substr(leaps.c.path, bindparam("width") + 1)
    folder = func.substr(leaps.c.path, 1, bindparam("width") + func.instr(rest, "/") - 1)
    following = select(column).where(*in_range, column >= folder.op("||")(cast(literal("0"), Text)))
    leaps = leaps.union_all(
        select(following.order_by(column).limit(1).correlate(leaps).scalar_subquery()).where(leaps.c.path.is_not(None))
    )
    return select(leaps.c.path).where(leaps.c.path.is_not(None)).limit(bindparam("limit"))


def _is_there(connection: Connection, path: str, view: View, *, below: bool = False) -> bool:
    """Say whether there is anything visible in a folder, or (unless ``below``) the folder itself is hand-made."""
    values = _range(folder_key(path)) | {"viewer": view.viewer}
    return connection.execute(_there_statement(_shape(view), below=below), values).first() is not None


def _with_rows(connection: Connection, paths: Sequence[str], view: View) -> Iterator[Folder]:
    """Give folders with what is known of those that were made by hand; the looker's own, else the oldest."""
    made: dict[str, Folder] = {}
    for start in range(0, len(paths), _AT_ONCE):
        keys = [folder_key(path) for path in paths[start : start + _AT_ONCE]]
        statement = select(*_FOLDER_COLUMNS).where(folders.c.path.in_(bindparam("keys", expanding=True)))
        rows = connection.execute(statement.where(_shape(view).made()), {"keys": keys, "viewer": view.viewer}).all()
        for row in sorted(rows, key=lambda row: (row.owner != view.viewer, row.revision)):
            made.setdefault(row.path, _folder_of(row))
    for path in paths:
        yield made.get(folder_key(path)) or Folder(path=path)


def _folder_of(row: Row[Any]) -> Folder:
    return Folder(
        path=row.path[:-1],
        owner=row.owner,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        removed_at=None if row.removed_at is None else datetime.fromtimestamp(row.removed_at, UTC),
        mtime_ns=row.mtime_ns,
        revision=row.revision,
    )


@cache
def _first_statement(shape: _Shape) -> Select[Any]:
    """Leave those of some images before which no other one of the same name comes."""
    other = images.alias("other")
    same_name = and_(other.c.folder == images.c.folder, other.c.name == images.c.name)
    is_own = images.c.owner == bindparam("viewer")
    earlier = other.c.place < images.c.place
    shelves = [shelf.value for shelf in (Shelf if shape.sees_all else (Shelf.LISTED,))]
    own_before = exists().where(
        other.c.owner == bindparam("viewer"),
        other.c.shelf.in_([shelf.value for shelf in Shelf]),
        same_name,
        or_(images.c.owner.is_distinct_from(bindparam("viewer")), earlier),
    )
    other_before = exists().where(other.c.shelf.in_(shelves), same_name, earlier)
    wanted = images.c.id.in_(bindparam("ids", expanding=True))
    return select(images.c.id).where(wanted, ~own_before, or_(is_own, ~other_before))


# Changes


def _make_folder(transaction: Transaction, *, folder: Folder, anew: bool, presented: Presented | None) -> Folder:
    touched = Touched(path=folder.path, guarding=folder.owner, is_bound=anew)
    check_unlocked(transaction, presented, lambda: (touched,))
    return _add_folder(transaction, folder=folder, anew=anew)


def _add_folder(transaction: Transaction, *, folder: Folder, anew: bool) -> Folder:
    key = folder_key(folder.path)
    connection = transaction.connection
    mine = and_(folders.c.owner == folder.owner, folders.c.path == key)
    before = connection.execute(select(*_FOLDER_COLUMNS).where(mine)).one_or_none()
    is_there = before is not None and before.removed_at is None
    if is_there and anew:
        raise PathTaken(f"There is a folder {folder.path!r} already.")
    values = {
        "revision": transaction.next_revision(),
        "created_at": before.created_at if before is not None and is_there else seconds(folder.created_at or _EPOCH),
        "removed_at": None,
        "mtime_ns": folder.mtime_ns,
    }
    if before is None:
        connection.execute(insert(folders), values | {"owner": folder.owner, "path": key})
    else:
        connection.execute(update(folders).where(mine), values)
    return _folder_of(connection.execute(select(*_FOLDER_COLUMNS).where(mine)).one())


def _remove_folder(
    transaction: Transaction, *, path: str, view: View, removed_at: datetime, presented: Presented | None
) -> None:
    connection = transaction.connection
    if not _is_there(connection, path, view):
        raise PathNotFound.at(path)
    if _is_there(connection, path, view, below=True):
        raise FolderNotEmpty(f"The folder {path!r} is not empty.")
    whose = _whose(view)
    touched = Touched(path=path, guarding=whose, is_bound=True, is_deep=True)
    check_unlocked(transaction, presented, lambda: (touched,))
    forget_locks(transaction, path, guards=whose, is_deep=True)
    remove_those_of_folder(transaction, path, owner=whose)
    made = select(*_FOLDER_COLUMNS).where(_shape(view).made(), folders.c.path == folder_key(path))
    _mark_removed(transaction, connection.execute(made, {"viewer": view.viewer}).all(), removed_at)


def _mark_removed(transaction: Transaction, rows: Sequence[Row[Any]], removed_at: datetime) -> None:
    for row in rows:
        values = {"removed_at": seconds(removed_at), "revision": transaction.next_revision()}
        mine = and_(folders.c.owner == row.owner, folders.c.path == row.path)
        transaction.connection.execute(update(folders).where(mine), values)


def _move_folder(
    transaction: Transaction, *, old: str, new: str, view: View, moved_at: datetime, presented: Presented | None
) -> int:
    connection = transaction.connection
    if not _is_there(connection, old, view):
        raise PathNotFound.at(old)
    if _is_there(connection, new, view, below=True):
        raise FolderNotEmpty(f"The folder {new!r} is not empty.")
    moved = list(_moved_images(connection, old, new, view))
    whose = _whose(view)
    touched = [Touched(path=path, guarding=whose, is_bound=True, is_deep=True) for path in (old, new)]
    check_unlocked(transaction, presented, lambda: touched)
    forget_locks(transaction, old, guards=whose, is_deep=True)
    move_those_of_folders(transaction, old, new, owner=whose)
    values = _range(folder_key(old)) | {"viewer": view.viewer}
    below = and_(folders.c.path >= bindparam("start"), folders.c.path < bindparam("stop"))
    made = connection.execute(select(*_FOLDER_COLUMNS).where(_shape(view).made(), below), values).all()
    now = seconds(moved_at)
    if moved:
        counted = [{**image, "its_revision": transaction.next_revision(), "now": now} for image in moved]
        connection.execute(_MOVE, counted)
    _mark_removed(transaction, made, moved_at)
    for row in made:
        folder = _folder_of(row)
        path = new + folder.path[len(old) :]
        moved_folder = Folder(path=path, owner=folder.owner, created_at=folder.created_at, mtime_ns=folder.mtime_ns)
        _add_folder(transaction, folder=moved_folder, anew=False)
    return len(moved)


def _whose(view: View) -> str | None:
    """Give whose locks and dead properties a change of folders is about; None: everybody's."""
    return None if view.sees_all else view.viewer


# A clock that was set back must not make an image older than its own creation.
_NOW: Final = case((images.c.created_at > bindparam("now"), images.c.created_at), else_=bindparam("now"))
_MOVE: Final = (
    update(images)
    .where(images.c.seq == bindparam("its_seq"))
    .values(
        name=bindparam("its_name"),
        folder=bindparam("its_folder"),
        revision=bindparam("its_revision"),
        updated_at=_NOW,
        changed_at=_NOW,
    )
)


def _moved_images(connection: Connection, old: str, new: str, view: View) -> Iterator[dict[str, Any]]:
    """Give what changes about every visible image below a folder that gets another path."""
    old_key = folder_key(old)
    values = _range(old_key) | {"viewer": view.viewer}
    for arm in _shape(view).arms():
        statement = select(images.c.seq, images.c.name, images.c.owner).where(
            arm, images.c.folder >= bindparam("start"), images.c.folder < bindparam("stop")
        )
        for row in connection.execute(statement, values):
            if not view.sees_all and row.owner != view.viewer:
                raise Forbidden(f"The folder {old!r} holds images of somebody else.")
            path = new + path_of(row.name)[len(old) :]
            yield {"its_seq": row.seq, "its_name": name_of(path), "its_folder": path[: path.rfind("/") + 1]}
