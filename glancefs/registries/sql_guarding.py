# SPDX-License-Identifier: Apache-2.0
"""Where images lie in the trees of their owners, so that changes of them are held against locks on those paths.

Answers for finding what a change of an image touches, whichever door it came through. Only asked while there are locks.

Threading: pure functions over a transaction.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Row, bindparam, select

from glancefs.model import Image
from glancefs.namesakes import namesake_paths
from glancefs.paths import path_of
from glancefs.registries.commits import Transaction
from glancefs.registries.folder_statements import before_statement, range_of, shape_of, there_statement
from glancefs.registries.folders import View
from glancefs.registries.locks import Presented, Touched
from glancefs.registries.rows import folder_key
from glancefs.registries.schema import images
from glancefs.registries.sql_locks import check_unlocked, has_locks_on

_PLACED: Final = select(*(images.c[name] for name in ("id", "owner", "name", "folder", "place"))).where(
    images.c.id == bindparam("wanted_id")
)


def check_new_image(transaction: Transaction, image: Image, presented: Presented | None) -> None:
    """Raise Locked where an image can't be added for a lock: one on its path, or on the folder that it would be in."""
    check_unlocked(
        transaction,
        presented,
        lambda: (Touched(path=path_of(image.name), guarding=image.owner, is_bound=True),),
    )


def check_successor(transaction: Transaction, image_id: str, image: Image, presented: Presented | None) -> None:
    """Raise Locked where a new image can't take the place of this one for a lock."""
    check_image(transaction, image_id, presented)
    if transaction.locks and presented is not None:
        before = transaction.connection.execute(_PLACED, {"wanted_id": image_id}).one_or_none()
        if before is not None and (before.name, before.owner) != (image.name, image.owner):
            check_new_image(transaction, image, presented)


def check_image(
    transaction: Transaction, image_id: str, presented: Presented | None, *, is_removed: bool = False
) -> None:
    """Raise Locked where an image can't be changed, or removed from its path, for a lock."""
    if presented is not None:
        touched = partial(touched_image, transaction, image_id, presented.at, is_bound=is_removed)
        check_unlocked(transaction, presented, touched)


def touched_image(
    transaction: Transaction, image_id: str, now: datetime, *, is_bound: bool = False
) -> tuple[Touched, ...]:
    """Give what a change of an image touches; nothing where there is none."""
    row = transaction.connection.execute(_PLACED, {"wanted_id": image_id}).one_or_none()
    if row is None:
        return ()
    return (Touched(path=_path_in_owners_tree(transaction, row, now), guarding=row.owner, is_bound=is_bound),)


def locked_path_of(transaction: Transaction, image_id: str, presented: Presented | None) -> str | None:
    """Give the path of an image that is about to leave it, so that the locks on it can go too; None without locks."""
    if presented is None or not transaction.locks:
        return None
    row = transaction.connection.execute(_PLACED, {"wanted_id": image_id}).one()
    return _path_in_owners_tree(transaction, row, presented.at)


def _path_in_owners_tree(transaction: Transaction, row: Row[Any], now: datetime) -> str:
    """Give where an image is for its owner: at the path of its name, unless something comes before it there."""
    plain = path_of(row.name)
    beside = next(namesake_paths(plain, row.id))
    # Nearly always neither is locked itself; the locks on folders above are the same for both.
    if has_locks_on(transaction, (plain, beside), now=now) and _is_behind(transaction, row, plain):
        return beside
    return plain


def _is_behind(transaction: Transaction, row: Row[Any], plain: str) -> bool:
    shape = shape_of(View(viewer=row.owner), transaction.ways)
    values = {"viewer": row.owner, "folder": row.folder, "folder_text": row.folder, "name": row.name}
    values |= {"before_place": row.place} | range_of(folder_key(plain))
    statements = [there_statement(shape, below=False)]
    if row.owner is not None:
        statements.append(before_statement(shape))
    return any(transaction.connection.execute(statement, values).first() is not None for statement in statements)
