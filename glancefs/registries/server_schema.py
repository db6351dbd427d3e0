# SPDX-License-Identifier: Apache-2.0
"""The tables in a database that indexes no long texts: those of `schema`, and keys that the database keeps up itself.

Answers for how PostgreSQL's and MariaDB's tables differ from SQLite's: what is sorted by a name or found by a path has
a column beside it, which the database computes from it (see `texts`), and the indexes hold that one. Statements speak
of the tables of `schema`, and of the keys through this module.

Names that share their first characters (`texts.SHARED` of them) and are longer than a key may be are next to each other
in lists, but not in their own order.

Threading: tables are built once, at their first use, and only read afterwards.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Computed, Index, MetaData, Table, case, func, literal_column
from sqlalchemy.sql.selectable import NamedFromClause  # noqa: TC002 - SQLAlchemy is loaded anyway

from glancefs.registries import schema
from glancefs.registries.texts import COLLATION, LONGEST_LEAF, Leaf, RawKey, key_expression

KEYS: Final = {"name": "name_key", "folder": "folder_key", "path": "path_key"}
"""Which column holds the key of which."""

MYSQL: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_row_format": "DYNAMIC",
    "mysql_charset": "utf8mb4",
    "mysql_collate": COLLATION,
}
"""What MariaDB is told of each table."""


def key_column(table: NamedFromClause, of: str) -> ColumnElement[str]:
    """Give the key of a column, in a statement over the tables of `schema`."""
    return literal_column(f"{table.name}.{KEYS[of]}", type_=RawKey())


def leaf_column(table: NamedFromClause) -> ColumnElement[Any]:
    """Give what the images of one folder are ordered by, in a statement over the tables of `schema`."""
    return literal_column(f"{table.name}.leaf", type_=Leaf())


def key_computed(of: ColumnElement[Any]) -> Computed:
    """Give how the database keeps a key up."""
    return Computed(key_expression(of), persisted=True)


def leaf_expression(name: ColumnElement[Any], folder: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give what a name is in its folder: what is left of it without the folder's path.

    Where the path is not what the name begins with, since it holds escapes, it is the whole name.
    """
    width = func.char_length(folder)
    rest = func.substr(name, width + literal_column("1"), type_=name.type)
    leaf = case((func.left(name, width, type_=name.type) == folder, rest), else_=name)
    return key_expression(leaf, longest=LONGEST_LEAF, is_bytes=True)


def leaf_computed(name: ColumnElement[Any], folder: ColumnElement[Any]) -> Computed:
    """Give how the database keeps `leaf_expression` up."""
    return Computed(leaf_expression(name, folder), persisted=True)


@cache
def server_metadata() -> MetaData:
    """Give the tables, made when they are first needed: with them, all that SQLAlchemy knows of servers loads."""
    metadata = MetaData(naming_convention=schema.metadata.naming_convention)
    for table in schema.metadata.sorted_tables:
        if table is schema.images:
            _add_images(metadata)
        elif table in {schema.folders, schema.folder_dead_properties}:
            _add_keyed(table, metadata)
        elif table is schema.locks:
            # There are few, which are looked through; their paths are too long for an index.
            _copied(table, metadata).indexes.clear()
        else:
            _copied(table, metadata)
    for index in (index for table in metadata.tables.values() for index in table.indexes):
        # PostgreSQL can leave rows out of an index, too.
        index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    return metadata


def _copied(table: Table, metadata: MetaData) -> Table:
    """Take a table over as it is, but for the comments: each would cost a statement, and a migration as it changes."""
    copy = table.to_metadata(metadata)
    copy.dialect_kwargs.update(MYSQL)
    copy.comment = None
    for column in copy.columns:
        column.comment = None
    return copy


def _add_images(metadata: MetaData) -> None:
    images = _copied(schema.images, metadata)
    for index in list(images.indexes):
        # Those of orders are made anew, over the keys.
        if "shelf" in index.columns or "grave" in index.columns:
            images.indexes.discard(index)
    images.append_column(Column("name_key", RawKey(), key_computed(images.c.name)))
    images.append_column(Column("folder_key", RawKey(), key_computed(images.c.folder)))
    images.append_column(Column("leaf", Leaf(), leaf_computed(images.c.name, images.c.folder)))
    schema.add_orders(images, kept_by=KEYS, run=("folder_key", "leaf", "place"))


def _add_keyed(table: Table, metadata: MetaData) -> None:
    """Add a table without its primary key, in which paths are too long."""
    columns = [Column(column.name, column.type, nullable=column.nullable) for column in table.c]
    keyed = Table(table.name, metadata, *columns, **MYSQL)
    keyed.append_column(Column("path_key", RawKey(), key_computed(keyed.c.path)))
    unique = [keyed.c[KEYS.get(column.name, column.name)] for column in table.primary_key]
    Index(f"ix_{table.name}_owner_path", *unique, unique=True)
    if table is schema.folders:
        Index("ix_folders_revision", keyed.c.revision, unique=True)
        Index("ix_folders_path", keyed.c.path_key)
