# SPDX-License-Identifier: Apache-2.0
"""Dead properties in the database, and what becomes of them when images and folders come, go and move.

Answers for `DeadPropertyRegistry`. Those of images and those of folders are in two tables; as long as there never was
one, which the row says at which all writers line up, other changes cost nothing more.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, func, insert, select, update

from glancefs.errors import ImageNotFound, InvalidRequest, StoreFull
from glancefs.model import ImageStatus
from glancefs.registries.commits import Commits, Transaction
from glancefs.registries.database import Database, looks_again
from glancefs.registries.dead_properties import (
    MAX_PROPERTY_NAME,
    MAX_PROPERTY_VALUE,
    MOST_PROPERTIES,
    OfFolder,
    OfImage,
    Subject,
)
from glancefs.registries.locks import Presented, Touched
from glancefs.registries.rows import folder_key
from glancefs.registries.schema import folder_dead_properties, image_dead_properties, images
from glancefs.registries.sql_guarding import touched_image
from glancefs.registries.sql_locks import check_unlocked
from glancefs.registries.sql_pulse import pulse_of

_AT_ONCE: Final = 500
"""How many values go into one statement."""

_OF_IMAGES: Final = (
    select(image_dead_properties)
    .where(image_dead_properties.c.image_id.in_(bindparam("keys", expanding=True)))
    .order_by(image_dead_properties.c.image_id, image_dead_properties.c.name)
)
_OF_FOLDERS: Final = (
    select(folder_dead_properties)
    .where(
        folder_dead_properties.c.owner == bindparam("wanted_owner"),
        folder_dead_properties.c.path.in_(bindparam("keys", expanding=True)),
    )
    .order_by(folder_dead_properties.c.path, folder_dead_properties.c.name)
)
_IS_THERE: Final = select(images.c.seq).where(
    images.c.id == bindparam("wanted_id"), images.c.status != ImageStatus.DELETED.value
)
_COPY: Final = insert(image_dead_properties).from_select(
    ["image_id", "digest", "name", "value"],
    select(
        bindparam("new_id", type_=image_dead_properties.c.image_id.type),
        image_dead_properties.c.digest,
        image_dead_properties.c.name,
        image_dead_properties.c.value,
    ).where(image_dead_properties.c.image_id == bindparam("old_id")),
)
_HAND_OVER: Final = update(image_dead_properties).where(image_dead_properties.c.image_id == bindparam("old_id"))
_REMOVE: Final = delete(image_dead_properties).where(image_dead_properties.c.image_id == bindparam("old_id"))


class SqlDeadProperties:
    """The dead properties of a registry that is kept in a database."""

    def __init__(self, *, database: Database, commits: Commits) -> None:
        self._database = database
        self._commits = commits

    def get(self, subject: Subject) -> Mapping[str, str]:
        """See `DeadPropertyRegistry.get`."""
        return self.get_many([subject]).get(subject, {})

    @looks_again
    def get_many(self, subjects: Collection[Subject]) -> Mapping[Subject, Mapping[str, str]]:
        """See `DeadPropertyRegistry.get_many`."""
        found: dict[Subject, dict[str, str]] = {}
        image_ids = [subject.image_id for subject in subjects if isinstance(subject, OfImage)]
        paths: dict[str, list[str]] = {}
        for subject in subjects:
            if isinstance(subject, OfFolder):
                paths.setdefault(subject.owner, []).append(folder_key(subject.path))
        with self._database.reading() as connection:
            if not pulse_of(connection).has_dead_properties:
                return {}
            for keys in _batches(image_ids):
                for row in connection.execute(_OF_IMAGES, {"keys": keys}):
                    found.setdefault(OfImage(row.image_id), {})[row.name] = row.value
            for owner, of_owner in paths.items():
                for keys in _batches(of_owner):
                    for row in connection.execute(_OF_FOLDERS, {"wanted_owner": owner, "keys": keys}):
                        found.setdefault(OfFolder(owner, row.path[:-1]), {})[row.name] = row.value
        return found

    def change(
        self, subject: Subject, *, values: Mapping[str, str], removed: Collection[str] = (), presented: Presented
    ) -> None:
        """See `DeadPropertyRegistry.change`."""
        for name, value in values.items():
            if len(name) > MAX_PROPERTY_NAME or len(value) > MAX_PROPERTY_VALUE:
                raise InvalidRequest(
                    f"A property's name is {MAX_PROPERTY_NAME} characters long at the most,"
                    f" its value {MAX_PROPERTY_VALUE}."
                )
        self._commits.run(partial(_change, subject=subject, values=values, removed=removed, presented=presented))


# What other changes do with them, inside their transactions


def copy_dead_properties(transaction: Transaction, old_id: str, new_id: str) -> None:
    """Give an image the same ones as another."""
    if transaction.has_dead_properties:
        transaction.connection.execute(_COPY, {"old_id": old_id, "new_id": new_id})


def hand_over_dead_properties(transaction: Transaction, old_id: str, new_id: str) -> None:
    """Give an image those of the one whose place it takes."""
    if transaction.has_dead_properties:
        transaction.connection.execute(_HAND_OVER, {"old_id": old_id, "image_id": new_id})


def remove_dead_properties(transaction: Transaction, image_id: str) -> None:
    """Remove those of an image that goes."""
    if transaction.has_dead_properties:
        transaction.connection.execute(_REMOVE, {"old_id": image_id})


def remove_those_of_folder(transaction: Transaction, path: str, *, owner: str | None) -> None:
    """Remove those that a user (None: anybody) gave to a folder."""
    if transaction.has_dead_properties:
        transaction.connection.execute(delete(folder_dead_properties).where(*_folder(path, owner)))


def move_those_of_folders(transaction: Transaction, old: str, new: str, *, owner: str | None) -> None:
    """Let those that a user (None: anybody) gave to a folder and to those below it follow to the new path.

    What is left of a folder that was at the new path before gives way.
    """
    if not transaction.has_dead_properties:
        return
    column = folder_dead_properties.c.path
    old_key, new_key = folder_key(old), folder_key(new)
    whose = [] if owner is None else [folder_dead_properties.c.owner == owner]
    gone = and_(column >= new_key, column < f"{new_key[:-1]}0")
    transaction.connection.execute(delete(folder_dead_properties).where(gone, *whose))
    moved = and_(column >= old_key, column < f"{old_key[:-1]}0")
    paths = transaction.connection.execute(
        select(folder_dead_properties.c.owner, column).distinct().where(moved, *whose)
    )
    for row in paths.all():
        same = and_(folder_dead_properties.c.owner == row.owner, column == row.path)
        values = {"path": new_key + row.path[len(old_key) :]}
        transaction.connection.execute(update(folder_dead_properties).where(same), values)


def _change(
    transaction: Transaction,
    *,
    subject: Subject,
    values: Mapping[str, str],
    removed: Collection[str],
    presented: Presented,
) -> None:
    table, key, mine = _rows_of(subject)
    connection = transaction.connection
    if isinstance(subject, OfImage):
        if connection.execute(_IS_THERE, {"wanted_id": subject.image_id}).first() is None:
            raise ImageNotFound.by_id(subject.image_id)
        check_unlocked(transaction, presented, partial(touched_image, transaction, subject.image_id, presented.at))
    else:
        touched = Touched(path=subject.path, guarding=subject.owner)
        check_unlocked(transaction, presented, lambda: (touched,))
    changed = [_digest(name) for name in (*values, *removed)]
    count = select(func.count()).select_from(table).where(*mine, table.c.digest.not_in(changed or [""]))
    if connection.execute(count).scalar_one() + len(values) > MOST_PROPERTIES:
        raise StoreFull(f"There is room for {MOST_PROPERTIES} properties of one image or folder.")
    for digests in _batches(changed):
        connection.execute(delete(table).where(*mine, table.c.digest.in_(digests)))
    if values:
        transaction.note_dead_properties()
        rows = [{**key, "digest": _digest(name), "name": name, "value": value} for name, value in values.items()]
        connection.execute(insert(table), rows)


def _rows_of(subject: Subject) -> tuple[Table, dict[str, Any], Sequence[ColumnElement[bool]]]:
    """Give the table, what a row of the subject's begins with, and what all of them have in common."""
    if isinstance(subject, OfImage):
        mine = [image_dead_properties.c.image_id == subject.image_id]
        return image_dead_properties, {"image_id": subject.image_id}, mine
    key = {"owner": subject.owner, "path": folder_key(subject.path)}
    return folder_dead_properties, key, _folder(subject.path, subject.owner)


def _folder(path: str, owner: str | None) -> Sequence[ColumnElement[bool]]:
    whose = [] if owner is None else [folder_dead_properties.c.owner == owner]
    return [folder_dead_properties.c.path == folder_key(path), *whose]


def _digest(name: str) -> str:
    return blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _batches(keys: Sequence[str]) -> Sequence[Sequence[str]]:
    return [keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE)]
