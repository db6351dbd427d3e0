# SPDX-License-Identifier: Apache-2.0
"""The tree in the database: folders are runs of indexes, so nothing of it is kept twice.

Answers for `FolderRegistry` over the same tables as `glancefs.registries.sql`; `folder_statements` says how they are
asked.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    insert,
    literal,
    select,
    update,
)

from glancefs.errors import FolderNotEmpty, Forbidden, InvalidQuery, PathNotFound, PathTaken
from glancefs.model import Image
from glancefs.paths import name_of, path_of
from glancefs.registries.commits import Commits, Transaction
from glancefs.registries.database import Database, Ways, looks_again
from glancefs.registries.folder_statements import (
    FOLDER_COLUMNS,
    STEPS,
    Shape,
    at_statement,
    bounds_of,
    first_statement,
    leap_statements,
    made_statement,
    named_statement,
    outlines_statement,
    page_statement,
    range_of,
    shape_of,
    step_statements,
    stop_of,
    there_statement,
)
from glancefs.registries.folders import Folder, FolderPage, Found, Outline, OutlinePage, View
from glancefs.registries.locks import Presented, Touched
from glancefs.registries.rows import IMAGE_COLUMNS, folder_key, image_of, seconds
from glancefs.registries.schema import folders, images
from glancefs.registries.server_schema import key_column
from glancefs.registries.sql_dead_properties import move_those_of_folders, remove_those_of_folder
from glancefs.registries.sql_locks import check_unlocked, forget_locks
from glancefs.registries.sql_pulse import fetched, pulse_of
from glancefs.registries.texts import SHARED, Key

_AT_ONCE: Final = 500
"""How many values go into one statement."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


_REMEMBERED: Final = 2048
"""How many names' meanings are remembered until the next change."""

_LONG: Final = 2048
"""Of images with longer properties nothing is remembered, in characters."""


class SqlFolders:
    """The tree of a registry that is kept in a database."""

    def __init__(self, *, database: Database, commits: Commits) -> None:
        self._database = database
        self._commits = commits
        self._ways = database.ways
        self._found: dict[tuple[str, View], tuple[int, Found]] = {}
        """What names meant at which revision."""

    @looks_again
    def images_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> FolderPage:
        """See `FolderRegistry.images_in`."""
        if limit <= 0:
            return FolderPage(images=(), marker=after)
        statement = page_statement(shape_of(view, self._ways), goes_on=after is not None)
        with self._database.reading() as connection:
            rows = fetched(connection.execute(statement, _page_values(path, view, after, limit)), self._ways)
        return FolderPage(images=tuple(image_of(row[:-2]) for row in rows[:limit]), marker=_marker(rows, limit))

    @looks_again
    def outlines_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> OutlinePage:
        """See `OutlinedRegistry.outlines_in`."""
        if limit <= 0:
            return OutlinePage(images=(), marker=after)
        statement = outlines_statement(shape_of(view, self._ways), goes_on=after is not None)
        with self._database.reading() as connection:
            rows = statement.rows(connection, _page_values(path, view, after, limit), self._ways)
        return OutlinePage(images=[Outline._make(row[:-2]) for row in rows[:limit]], marker=_marker(rows, limit))

    @looks_again
    def folders_in(self, path: str, view: View, *, after: str | None = None, limit: int = 1000) -> Sequence[Folder]:
        """See `FolderRegistry.folders_in`."""
        key = folder_key(path)
        values = range_of(key) | {"viewer": view.viewer, "width": len(key), "limit": max(limit, 0)}
        if after is not None:
            values["start"] = stop_of(folder_key(after))
        with self._database.reading() as connection:
            found = self._steps(connection, key, view, values) if limit > 0 else set()
            # In the order in which they were found, so that the last one says where the next page begins.
            paths = sorted(found, key=folder_key)[: max(limit, 0)]
            return list(_with_rows(connection, paths, shape_of(view, self._ways), view))

    def _steps(self, connection: Connection, key: str, view: View, values: dict[str, Any]) -> set[str]:
        """Give the paths of the folders right below one; some further ones may be among them."""
        shape = shape_of(view, self._ways)
        found: set[str] = set()
        if self._ways.leaps:
            for statement in leap_statements(shape):
                rows = connection.execute(statement, values).scalars()
                found.update(key + child[len(key) :].split("/", 1)[0] for child in rows)
            return found
        for part in range(len(list(shape.parts()))):
            found.update(_leaped(connection, shape, part, key, values))
        return found

    @looks_again
    def folder(self, path: str, view: View) -> Folder:
        """See `FolderRegistry.folder`."""
        with self._database.reading() as connection:
            shape = shape_of(view, self._ways)
            folder = next(_with_rows(connection, [path], shape, view))
            is_there = folder.owner is not None or not path or _is_there(connection, path, shape, view)
        # Outside, since an error inside would cost the connection.
        if not is_there:
            raise PathNotFound.at(path)
        return folder

    @looks_again
    def first_named(self, name: str, view: View) -> Image | None:
        """See `FolderRegistry.first_named`."""
        with self._database.reading() as connection:
            rows = _named(connection, name, view, self._ways)
        return image_of(_first(rows)) if rows else None

    @looks_again
    def at(self, name: str, view: View) -> Found:
        """See `FolderRegistry.at`."""
        with self._database.reading() as connection:
            # Read before: what is found then is at least as new, and asked for anew if it is newer.
            revision = pulse_of(connection).revision
            known = self._found.get((name, view))
            if known is not None and known[0] == revision:
                return known[1]
            found = _at(connection, name, view, shape_of(view, self._ways))
        if found.image is not None and sum(map(len, found.image.properties.values())) > _LONG:
            return found
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[name, view] = revision, found
        return found

    @looks_again
    def first_of_their_names(self, image_ids: Collection[str], view: View) -> Collection[str]:
        """See `FolderRegistry.first_of_their_names`."""
        ids = list(image_ids)
        first: set[str] = set()
        statement = first_statement(shape_of(view, self._ways))
        with self._database.reading() as connection:
            for start in range(0, len(ids), _AT_ONCE):
                values = {"ids": ids[start : start + _AT_ONCE], "viewer": view.viewer}
                first.update(connection.execute(statement, values).scalars())
        return first

    def add_folder(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """See `FolderRegistry.add_folder`."""
        return self._commits.run(partial(_make_folder, ways=self._ways, folder=folder, anew=True, presented=presented))

    def set_folder_mtime(self, folder: Folder, *, presented: Presented | None = None) -> Folder:
        """See `FolderRegistry.set_folder_mtime`."""
        return self._commits.run(partial(_make_folder, ways=self._ways, folder=folder, anew=False, presented=presented))

    def remove_folder(self, path: str, view: View, *, removed_at: datetime, presented: Presented | None = None) -> None:
        """See `FolderRegistry.remove_folder`."""
        self._commits.run(
            partial(_remove_folder, ways=self._ways, path=path, view=view, removed_at=removed_at, presented=presented)
        )

    def move_folder(
        self, old: str, new: str, view: View, *, moved_at: datetime, presented: Presented | None = None
    ) -> int:
        """See `FolderRegistry.move_folder`."""
        return self._commits.run(
            partial(_move_folder, ways=self._ways, old=old, new=new, view=view, moved_at=moved_at, presented=presented)
        )


def check_vacant(transaction: Transaction, name: str, view: View) -> None:
    """Raise PathTaken where an image of this name is to be seen."""
    if _named(transaction.connection, name, view, transaction.ways):
        raise PathTaken(f"There is an image {name!r} already.")


def changed_folders(connection: Connection, *, since: int, limit: int) -> Sequence[Folder]:
    """Give the hand-made folders that changed after a revision, in order, removed ones too."""
    statement = (
        select(*FOLDER_COLUMNS)
        .where(folders.c.revision > bindparam("since"))
        .order_by(folders.c.revision)
        .limit(bindparam("limit"))
    )
    return [_folder_of(row) for row in connection.execute(statement, {"since": since, "limit": limit})]


# What a looker sees. The statements are built once for each shape of a view.


def _named(connection: Connection, name: str, view: View, ways: Ways) -> Sequence[tuple[Any, ...]]:
    return named_statement(shape_of(view, ways)).rows(connection, _name_values(name, view), ways)


def _name_values(name: str, view: View) -> dict[str, Any]:
    path = path_of(name)
    folder = path[: path.rfind("/") + 1]
    return {"viewer": view.viewer, "folder": folder, "folder_text": folder, "name": name}


def _at(connection: Connection, name: str, view: View, shape: Shape) -> Found:
    path = path_of(name)
    values = _name_values(name, view) | range_of(folder_key(path))
    rows = at_statement(shape).rows(connection, values, shape.ways)
    folder = next(_with_rows(connection, [path], shape, view)) if rows[0][-1] else None
    return Found(image=None if rows[0][0] is None else image_of(_first(rows)), folder=folder)


def _first(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Give, of what a name can mean, what comes first: the columns of its image."""
    place, rank = len(IMAGE_COLUMNS), len(IMAGE_COLUMNS) + 1
    return min(rows, key=lambda row: (row[rank], row[place]))[:place]


def _page_values(path: str, view: View, after: str | None, limit: int) -> dict[str, Any]:
    # One more than asked for tells whether there is more.
    values: dict[str, Any] = {"folder": folder_key(path), "viewer": view.viewer, "limit": limit + 1}
    if after is not None:
        values["after_place"], values["after_leaf"] = _read_marker(after)
    return values


def _marker(rows: Sequence[tuple[Any, ...]], limit: int) -> str | None:
    return f"{rows[limit - 1][-2]}:{rows[limit - 1][-1]}" if len(rows) > limit else None


def _read_marker(text: str) -> tuple[int, str]:
    place, colon, name = text.partition(":")
    if not colon or not place.isdecimal():
        raise InvalidQuery("The marker is not one of a folder's.")
    return int(place), name


def _leaped(connection: Connection, shape: Shape, part: int, key: str, values: dict[str, Any]) -> Sequence[str]:
    """Find the folders right below another as `_leaps` does, some steps at a time."""
    # Nothing in a path comes before a blank; the folder's own images are not of interest.
    start, stop = max(values["start"], f"{key} "), values["stop"]
    found: list[str] = []
    while len(found) < values["limit"]:
        is_deep = len(start) > SHARED
        here = values | bounds_of(start, stop)
        paths = connection.execute(step_statements(shape, part, is_deep=is_deep), here).scalars().all()
        steps = [path[: path.index("/", len(key))] for path in paths]
        if not is_deep and any(len(step) >= SHARED for step in steps):
            # Keys are in no order there; what such a deep folder holds is looked through as it is.
            paths = connection.execute(step_statements(shape, part, is_deep=True), here).scalars().all()
            steps, is_deep = [path[: path.index("/", len(key))] for path in paths], True
        found += [step for step, before in zip(steps, [None, *steps], strict=False) if step != before]
        if is_deep or len(steps) < STEPS:
            break
        start = stop_of(folder_key(steps[-1]))
    return found


def _is_there(connection: Connection, path: str, shape: Shape, view: View, *, below: bool = False) -> bool:
    """Say whether there is anything visible in a folder, or (unless ``below``) the folder itself is hand-made."""
    values = range_of(folder_key(path)) | {"viewer": view.viewer}
    return connection.execute(there_statement(shape, below=below), values).first() is not None


def _with_rows(connection: Connection, paths: Sequence[str], shape: Shape, view: View) -> Iterator[Folder]:
    """Give folders with what is known of those that were made by hand; the looker's own, else the oldest."""
    made: dict[str, Folder] = {}
    for start in range(0, len(paths), _AT_ONCE):
        keys = [folder_key(path) for path in paths[start : start + _AT_ONCE]]
        rows = connection.execute(made_statement(shape), {"keys": keys, "viewer": view.viewer}).all()
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


# Changes


def _mine(ways: Ways, owner: str | None, key: str) -> ColumnElement[bool]:
    """Say that a hand-made folder is somebody's at a path."""
    at = key_column(folders, "path") == literal(key, Key()) if ways.has_keys else folders.c.path == key
    return and_(folders.c.owner == owner, at)


def _make_folder(
    transaction: Transaction, *, ways: Ways, folder: Folder, anew: bool, presented: Presented | None
) -> Folder:
    touched = Touched(path=folder.path, guarding=folder.owner, is_bound=anew)
    check_unlocked(transaction, presented, lambda: (touched,))
    return _add_folder(transaction, ways=ways, folder=folder, anew=anew)


def _add_folder(transaction: Transaction, *, ways: Ways, folder: Folder, anew: bool) -> Folder:
    key = folder_key(folder.path)
    connection = transaction.connection
    mine = _mine(ways, folder.owner, key)
    before = connection.execute(select(*FOLDER_COLUMNS).where(mine)).one_or_none()
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
    return _folder_of(connection.execute(select(*FOLDER_COLUMNS).where(mine)).one())


def _remove_folder(
    transaction: Transaction, *, ways: Ways, path: str, view: View, removed_at: datetime, presented: Presented | None
) -> None:
    connection = transaction.connection
    shape = shape_of(view, ways)
    if not _is_there(connection, path, shape, view):
        raise PathNotFound.at(path)
    if _is_there(connection, path, shape, view, below=True):
        raise FolderNotEmpty(f"The folder {path!r} is not empty.")
    whose = _whose(view)
    touched = Touched(path=path, guarding=whose, is_bound=True, is_deep=True)
    check_unlocked(transaction, presented, lambda: (touched,))
    forget_locks(transaction, path, guards=whose, is_deep=True)
    remove_those_of_folder(transaction, path, owner=whose)
    values = {"keys": [folder_key(path)], "viewer": view.viewer}
    _mark_removed(transaction, ways, connection.execute(made_statement(shape), values).all(), removed_at)


def _mark_removed(transaction: Transaction, ways: Ways, rows: Sequence[Row[Any]], removed_at: datetime) -> None:
    for row in rows:
        values = {"removed_at": seconds(removed_at), "revision": transaction.next_revision()}
        transaction.connection.execute(update(folders).where(_mine(ways, row.owner, row.path)), values)


def _move_folder(
    transaction: Transaction,
    *,
    ways: Ways,
    old: str,
    new: str,
    view: View,
    moved_at: datetime,
    presented: Presented | None,
) -> int:
    connection = transaction.connection
    shape = shape_of(view, ways)
    if not _is_there(connection, old, shape, view):
        raise PathNotFound.at(old)
    if _is_there(connection, new, shape, view, below=True):
        raise FolderNotEmpty(f"The folder {new!r} is not empty.")
    moved = list(_moved_images(connection, old, new, shape, view))
    whose = _whose(view)
    touched = [Touched(path=path, guarding=whose, is_bound=True, is_deep=True) for path in (old, new)]
    check_unlocked(transaction, presented, lambda: touched)
    forget_locks(transaction, old, guards=whose, is_deep=True)
    move_those_of_folders(transaction, old, new, owner=whose)
    values = range_of(folder_key(old)) | {"viewer": view.viewer}
    below = select(*FOLDER_COLUMNS).where(shape.made(), shape.begins(folders))
    made = connection.execute(below, values).all()
    now = seconds(moved_at)
    if moved:
        counted = [{**image, "its_revision": transaction.next_revision(), "now": now} for image in moved]
        connection.execute(_MOVE, counted)
    _mark_removed(transaction, ways, made, moved_at)
    for row in made:
        folder = _folder_of(row)
        path = new + folder.path[len(old) :]
        moved_folder = Folder(path=path, owner=folder.owner, created_at=folder.created_at, mtime_ns=folder.mtime_ns)
        _add_folder(transaction, ways=ways, folder=moved_folder, anew=False)
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


def _moved_images(connection: Connection, old: str, new: str, shape: Shape, view: View) -> Iterator[dict[str, Any]]:
    """Give what changes about every visible image below a folder that gets another path."""
    values = range_of(folder_key(old)) | {"viewer": view.viewer}
    for arm in shape.arms():
        statement = arm.select(images.c.seq, images.c.name, images.c.owner).where(shape.begins(images))
        for row in connection.execute(statement, values):
            if not view.sees_all and row.owner != view.viewer:
                raise Forbidden(f"The folder {old!r} holds images of somebody else.")
            path = new + path_of(row.name)[len(old) :]
            yield {"its_seq": row.seq, "its_name": name_of(path), "its_folder": path[: path.rfind("/") + 1]}
