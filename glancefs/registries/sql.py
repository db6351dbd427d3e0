# SPDX-License-Identifier: Apache-2.0
"""The registry on a database of one's own: SQLite in the data folder, PostgreSQL or MariaDB.

Answers for `Registry` over SQLAlchemy Core. The tables are in `schema`, what goes into them in `rows`, lists in
`lists`, transactions in `commits`, the ways of the databases in `sqlite`, `postgresql` and `mariadb`, and the versions
of the schema in `upgrade`.

Threading: every method may be called from many threads at once, and from many processes on the same database. A
registry is not to be used on both sides of a fork.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import bindparam, delete, insert, select, update

from glancefs.errors import Duplicate, ImageNotFound, InvalidQuery, StaleImage, StoreFull
from glancefs.model import Image, ImageStatus, Location
from glancefs.registries.base import Answered, Changes, Holdings, ImageQuery, Superseded
from glancefs.registries.commits import Commits, GroupCommit, Transaction
from glancefs.registries.database import looks_again
from glancefs.registries.engines import open_database
from glancefs.registries.folders import View
from glancefs.registries.lists import Lists
from glancefs.registries.locks import Presented
from glancefs.registries.once import Answers
from glancefs.registries.rows import IMAGE_COLUMNS, image_of, property_digests, values_of
from glancefs.registries.schema import counters, holdings, image_properties, images
from glancefs.registries.sql_dead_properties import (
    SqlDeadProperties,
    copy_dead_properties,
    hand_over_dead_properties,
    remove_dead_properties,
)
from glancefs.registries.sql_folders import SqlFolders, changed_folders, check_vacant
from glancefs.registries.sql_guarding import check_image, check_new_image, check_successor, locked_path_of
from glancefs.registries.sql_locks import SqlLocks, forget_locks
from glancefs.registries.sql_pulse import Straight
from glancefs.registries.upgrade import check_schema, upgrade

_GET: Final = Straight(select(*IMAGE_COLUMNS).where(images.c.id == bindparam("wanted_id")))
_ADD: Final = Straight(insert(images))
_REPLACE: Final = update(images).where(images.c.id == bindparam("wanted_id"))
_CURRENT: Final = select(images.c.seq, *IMAGE_COLUMNS).where(images.c.id == bindparam("wanted_id"))
_PLACE: Final = select(images.c.place).where(images.c.id == bindparam("wanted_id"))
_IS_TAKEN: Final = Straight(select(images.c.seq).where(images.c.id == bindparam("wanted_id")))
_TAKEN: Final = select(images.c.id).where(images.c.id.in_(bindparam("ids", expanding=True)))
_ADD_PROPERTY: Final = insert(image_properties)
_REMOVE_PROPERTY: Final = delete(image_properties).where(
    image_properties.c.digest == bindparam("old_digest"), image_properties.c.seq == bindparam("old_seq")
)
_REVISION: Final = select(counters.c.revision).where(counters.c.id == 1)
_IDENTITY: Final = select(counters.c.identity).where(counters.c.id == 1)
_CHANGES: Final = (
    select(*IMAGE_COLUMNS)
    .where(images.c.revision > bindparam("since"))
    .order_by(images.c.revision)
    .limit(bindparam("limit"))
)
_NAMED: Final = select(images.c.location).where(
    images.c.location.in_(bindparam("locations", expanding=True)), images.c.status != ImageStatus.DELETED.value
)
_HOLDINGS: Final = select(holdings).where(holdings.c.images != 0).order_by(holdings.c.status, holdings.c.store)

_AT_ONCE: Final = 500
"""How many values go into one statement."""


def registry_url(data_folder: Path) -> str:
    """Give the URL of the registry that is kept in a data folder."""
    return f"sqlite:///{data_folder.absolute() / 'registry.sqlite'}"


@dataclass(slots=True)
class _Room:
    """Whether the room that was set aside for a full disk is in use."""

    was_given: bool = False


class SqlRegistry:
    """Keeps the metadata of images in a database.

    Raises ConfigError where there is no database of the right schema yet (with `migrate` it is made, or brought up to
    date), and SchemaTooNew where a later version made it. `busy_timeout` is in seconds: others writing for longer make
    a change fail with RegistryUnavailable. `connections` is how many a server is asked for at the most, besides one to
    write and one to wait for news.
    """

    def __init__(self, *, url: str, migrate: bool = False, busy_timeout: float = 30.0, connections: int = 10) -> None:
        self._database = open_database(url, busy_timeout=busy_timeout, connections=connections)
        try:
            if migrate:
                upgrade(self._database)
                self._database.set_room_aside()
            else:
                check_schema(self._database)
        except BaseException:
            self._database.close()
            raise
        self._lists = Lists(self._database.ways)
        self._answers = Answers()
        self._room = _Room()
        self._change_by(GroupCommit(database=self._database))

    def _change_by(self, commits: Commits) -> Self:
        self._commits = commits
        self._folders = SqlFolders(database=self._database, commits=commits)
        self._locks = SqlLocks(database=self._database, commits=commits)
        self._dead_properties = SqlDeadProperties(database=self._database, commits=commits)
        return self

    def once(self, key: str, *, until: float | None = None) -> Self:
        """See `ServedRegistry.once`."""
        commits = self._answers.of(key, self._commits, until=until)
        return copy(self)._change_by(commits)  # noqa: SLF001 - a copy of this very object

    @looks_again
    def answered(self, key: str) -> Answered | None:
        """See `Registry.answered`."""
        with self._database.reading() as connection:
            return self._answers.find(connection, key)

    @property
    def folders(self) -> SqlFolders:
        """See `Registry.folders`."""
        return self._folders

    @property
    def locks(self) -> SqlLocks:
        """See `Registry.locks`."""
        return self._locks

    @property
    def dead_properties(self) -> SqlDeadProperties:
        """See `Registry.dead_properties`."""
        return self._dead_properties

    def add(
        self,
        image: Image,
        *,
        superseding: Superseded | None = None,
        copied_from: str | None = None,
        presented: Presented | None = None,
        vacant_for: View | None = None,
    ) -> Image:
        """See `Registry.add`."""

        def change(transaction: Transaction) -> Image:
            if vacant_for is not None:
                check_vacant(transaction, image.name, vacant_for)
            return _add(transaction, image, superseding, copied_from, presented)

        return self._commits.run(change)

    @looks_again
    def get(self, image_id: str) -> Image:
        """See `Registry.get`."""
        try:
            with self._database.reading() as connection:
                rows = _GET.rows(connection, {"wanted_id": image_id}, self._database.ways)
        except UnicodeError:
            # No database holds such a text, so no image has it.
            rows = ()
        if not rows:
            raise ImageNotFound.by_id(image_id)
        return image_of(rows[0])

    @looks_again
    def find(self, query: ImageQuery) -> Sequence[Image]:
        """See `Registry.find`."""
        try:
            with self._database.reading() as connection:
                return self._lists.page(connection, query)
        except UnicodeError:
            raise InvalidQuery("The query holds bytes that are no text.") from None

    def replace(
        self,
        image: Image,
        *,
        expected_revision: int,
        superseding: Superseded | None = None,
        presented: Presented | None = None,
    ) -> Image:
        """See `Registry.replace`."""
        return self._commits.run(
            lambda transaction: _replace(transaction, image, expected_revision, superseding, presented)
        )

    def delete(
        self, image_id: str, *, expected_revision: int, deleted_at: datetime, presented: Presented | None = None
    ) -> Image:
        """See `Registry.delete`. With the disk full it goes on working, by the room that was set aside."""

        def change(transaction: Transaction) -> Image:
            _, before = _current(transaction, image_id, expected_revision)
            check_image(transaction, image_id, presented, is_removed=True)
            left = locked_path_of(transaction, image_id, presented)
            if left is not None:
                forget_locks(transaction, left, guards=before.owner)
            remove_dead_properties(transaction, image_id)
            return _delete(transaction, image_id, expected_revision, deleted_at)

        if self._room.was_given:
            self._room.was_given = not self._database.set_room_aside()
        try:
            return self._commits.run(change)
        except StoreFull:
            if not self._database.give_room():
                raise
            self._room.was_given = True
            return self._commits.run(change)

    @looks_again
    def changes(self, *, since: int, limit: int = 1000) -> Changes:
        """See `Registry.changes`."""
        with self._database.reading() as connection:
            # The counter is read first: what it counts is there when the images are read.
            revision = connection.execute(_REVISION).scalar_one()
            if revision == since:
                # Followers ask this several times a second, and nearly always nothing has changed.
                return Changes(images=(), revision=since)
            rows = connection.execute(_CHANGES, {"since": since, "limit": limit}).all()
            folders = changed_folders(connection, since=since, limit=limit)
        changed = tuple(image_of(row) for row in rows)
        if limit <= 0:
            return Changes(images=(), revision=since)
        # Further changes may have been committed between the statements, and a full piece tells nothing beyond its end.
        known = min(revision, *(piece[-1].revision for piece in (changed, folders) if len(piece) == limit), revision)
        return Changes(
            images=tuple(image for image in changed if image.revision <= known),
            folders=tuple(folder for folder in folders if folder.revision <= known),
            revision=known,
        )

    @property
    def tells_of_changes(self) -> bool:
        """See `Registry.tells_of_changes`."""
        return bool(self._database.news())

    def wait_for_change(self, *, timeout: float) -> None:
        """See `Registry.wait_for_change`."""
        self._database.wait(timeout)

    @looks_again
    def revision(self) -> int:
        """See `Registry.revision`."""
        with self._database.reading() as connection:
            return int(connection.execute(_REVISION).scalar_one())

    @looks_again
    def identity(self) -> str:
        """See `Registry.identity`."""
        with self._database.reading() as connection:
            return str(connection.execute(_IDENTITY).scalar_one())

    @looks_again
    def named_locations(self, locations: Collection[Location]) -> Collection[Location]:
        """See `Registry.named_locations`."""
        texts = [str(location) for location in locations]
        named: set[Location] = set()
        with self._database.reading() as connection:
            for start in range(0, len(texts), _AT_ONCE):
                piece = texts[start : start + _AT_ONCE]
                named |= {Location.parse(text) for text in connection.execute(_NAMED, {"locations": piece}).scalars()}
        return named

    @looks_again
    def holdings(self) -> Sequence[Holdings]:
        """See `Registry.holdings`."""
        with self._database.reading() as connection:
            rows = connection.execute(_HOLDINGS).all()
        return [
            Holdings(status=ImageStatus(status), store=store, images=count, size=(high << 32) + low)
            for status, store, count, high, low in rows
        ]

    @looks_again
    def integrity_check(self) -> Sequence[str]:
        """Let the database look itself over; give what is wrong with it, in the database's words."""
        with self._database.reading() as connection:
            return self._database.integrity_check(connection)

    def close(self) -> None:
        """See `Registry.close`."""
        self._commits.close()
        self._database.close()


def _add(
    transaction: Transaction,
    image: Image,
    superseded: Superseded | None,
    copied_from: str | None,
    presented: Presented | None,
) -> Image:
    # What can't be written is refused before anything is counted.
    values = values_of(image)
    if image.id and _is_taken(transaction, image.id):
        raise Duplicate(f"There is, or was, an image {image.id!r}.")
    if superseded is None:
        check_new_image(transaction, image, presented)
    else:
        check_successor(transaction, superseded.image_id, image, presented)
    place = None if superseded is None else _supersede(transaction, superseded)
    image_id = image.id or _generated_id(transaction)
    revision = transaction.next_revision()
    added = replace(image, id=image_id, revision=revision)
    values |= {"id": image_id, "revision": revision, "seq": revision, "place": revision if place is None else place}
    _ADD.change(transaction.connection, values, transaction.ways)
    _add_properties(transaction, revision, property_digests(added.properties))
    transaction.hold(added, images=1)
    if copied_from is not None:
        copy_dead_properties(transaction, copied_from, image_id)
        if superseded is not None:
            remove_dead_properties(transaction, superseded.image_id)
    elif superseded is not None:
        hand_over_dead_properties(transaction, superseded.image_id, image_id)
    return added


def _is_taken(transaction: Transaction, image_id: str) -> bool:
    return bool(_IS_TAKEN.rows(transaction.connection, {"wanted_id": image_id}, transaction.ways))


def _generated_id(transaction: Transaction) -> str:
    """Take the next whole number that nobody took. Sought in larger steps: users may have taken many in a row."""
    (number,) = transaction.next_numbers(1)
    transaction.use_number(number)
    if not _is_taken(transaction, str(number)):
        return str(number)
    while True:
        numbers = transaction.next_numbers(_AT_ONCE)
        taken = set(transaction.connection.execute(_TAKEN, {"ids": [str(number) for number in numbers]}).scalars())
        for number in numbers:
            transaction.use_number(number)
            if str(number) not in taken:
                return str(number)


def _replace(
    transaction: Transaction,
    image: Image,
    expected_revision: int,
    superseded: Superseded | None,
    presented: Presented | None,
) -> Image:
    values = values_of(image)
    seq, before = _current(transaction, image.id, expected_revision)
    is_moved = (before.name, before.owner) != (image.name, image.owner)
    check_image(transaction, image.id, presented, is_removed=is_moved)
    if superseded is not None:
        check_image(transaction, superseded.image_id, presented, is_removed=is_moved)
    elif is_moved:
        check_new_image(transaction, image, presented)
    left = locked_path_of(transaction, image.id, presented) if is_moved else None
    if superseded is not None:
        values["place"] = _supersede(transaction, superseded)
        remove_dead_properties(transaction, superseded.image_id)
    if left is not None:
        forget_locks(transaction, left, guards=before.owner)
    after = replace(image, revision=transaction.next_revision())
    transaction.connection.execute(_REPLACE, values | {"revision": after.revision, "wanted_id": image.id})
    old, new = property_digests(before.properties), property_digests(after.properties)
    gone = [{"old_digest": digest, "old_seq": seq} for digest in old - new]
    if gone:
        transaction.connection.execute(_REMOVE_PROPERTY, gone)
    _add_properties(transaction, seq, new - old)
    transaction.hold(before, images=-1)
    transaction.hold(after, images=1)
    return after


def _supersede(transaction: Transaction, superseded: Superseded) -> int:
    """Delete an image that another one takes the place of, and give that place."""
    _delete(transaction, superseded.image_id, superseded.expected_revision, superseded.deleted_at)
    place: int = transaction.connection.execute(_PLACE, {"wanted_id": superseded.image_id}).scalar_one()
    return place


def _delete(transaction: Transaction, image_id: str, expected_revision: int, deleted_at: datetime) -> Image:
    _, before = _current(transaction, image_id, expected_revision)
    tombstone = replace(
        before,
        status=ImageStatus.DELETED,
        deleted_at=deleted_at,
        location=None,
        revision=transaction.next_revision(),
    )
    transaction.connection.execute(_REPLACE, values_of(tombstone) | {"wanted_id": image_id})
    transaction.hold(before, images=-1)
    return tombstone


def _current(transaction: Transaction, image_id: str, expected_revision: int) -> tuple[int, Image]:
    """Give the ``seq`` of an image, and the image, which is to be at the expected revision."""
    row = transaction.connection.execute(_CURRENT, {"wanted_id": image_id}).one_or_none()
    if row is None or row.status == ImageStatus.DELETED:
        raise ImageNotFound.by_id(image_id)
    if row.revision != expected_revision:
        raise StaleImage(f"The image {image_id!r} was changed by somebody else.")
    return row.seq, image_of(row[1:])


def _add_properties(transaction: Transaction, seq: int, digests: Collection[str]) -> None:
    if digests:
        rows: list[dict[str, Any]] = [{"digest": digest, "seq": seq} for digest in digests]
        transaction.connection.execute(_ADD_PROPERTY, rows)
