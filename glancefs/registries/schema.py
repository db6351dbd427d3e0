# SPDX-License-Identifier: Apache-2.0
"""The tables of the registry's database, column by column, and the indexes that keep every list cheap.

Answers for what the database looks like; `migrations` holds the steps that lead there, and a test compares the two.
Knows no rules of images: `rows` says what goes into the columns.

Every list is made of *shelves*. What decides who may see an image (public or private, with data or without) is one
small number, so that each list is a merge of a few ranges of indexes that are in the wanted order already: the public
shelf, and the caller's own part of the other ones.

Threading: tables are built once, at import, and only read afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, SmallInteger, Table

from glancefs.registries.texts import Kept

REVISIONS: Final = ("0001", "0002", "0003", "0004")
"""Every schema that this version knows, oldest first; the last one is the one that it works with."""

SORTED_BY: Final = ("created_at", "updated_at", "name", "size", "id")
"""The columns by which every shelf is kept in order; lists by another column have to sort."""

PASSED_BY: Final = ("type", "status", "disk_format", "container_format")
"""Columns without an order of their own, which are in the indexes that lists walk: for filters and rare sorts."""

SEQ_INDEX: Final = "ix_images_seq"

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

images: Final = Table(
    "images",
    metadata,
    Column("id", Kept(255), primary_key=True, comment="The identifier; never used again, so tombstones keep theirs."),
    Column("seq", BigInteger, nullable=False, comment="The revision that added it: the order of addition."),
    Column("revision", BigInteger, nullable=False, comment="The change that made it what it is, unique."),
    Column("shelf", SmallInteger, comment="Who may see it while it lives (rows.Shelf); NULL once it is deleted."),
    Column("grave", SmallInteger, comment="Who may see its tombstone (rows.Grave); NULL while it lives."),
    Column("name", Kept(1024), nullable=False, comment="Not unique."),
    Column("type", Kept(16), nullable=False, comment="kernel, machine, raw or ramdisk."),
    Column("status", Kept(16), nullable=False, comment="queued, saving, available, killed or deleted."),
    Column("size", BigInteger, nullable=False, comment="In bytes."),
    Column("checksum", Kept(255), comment="sha256: and 64 hex digits; NULL until there are data."),
    Column("store", Kept(255), nullable=False, comment="The name of the store that has, or is to have, the data."),
    Column("location", Kept(700), comment="STORE:KEY; NULL where there are no data."),
    Column("owner", Kept(255), comment="Who added it; NULL for nobody."),
    Column("is_public", Boolean, nullable=False, comment="Whether anybody may see it."),
    Column("properties", Kept(), nullable=False, comment="All of them, as a JSON object of texts, in ASCII."),
    Column("created_at", BigInteger, nullable=False, comment="UTC, in seconds since the epoch, like all times."),
    Column("updated_at", BigInteger, nullable=False, comment="When its metadata were changed last."),
    Column("deleted_at", BigInteger, comment="When it was deleted; NULL while it lives."),
    Column("changed_at", BigInteger, nullable=False, comment="The later one of updated_at and deleted_at."),
    Column("disk_format", Kept(32), comment="NULL where nobody said."),
    Column("container_format", Kept(32), comment="NULL where nobody said."),
    Column("virtual_size", BigInteger, comment="In bytes; NULL where nobody said."),
    Column("min_disk", BigInteger, comment="In GiB; NULL where nobody said."),
    Column("min_ram", BigInteger, comment="In MiB; NULL where nobody said."),
    Column("protected", Boolean, nullable=False, comment="Whether it refuses to be deleted."),
    Column(
        "folder", Kept(4096), comment="The path of its folder and a slash, empty for the root; NULL once it is deleted."
    ),
    Column("place", BigInteger, comment="Its order among namesakes: the seq of the first of those it took over from."),
)

image_properties: Final = Table(
    "image_properties",
    metadata,
    Column("digest", Kept(32), primary_key=True, comment="Of KEY=VALUE (rows.property_digest)."),
    Column(
        "seq",
        BigInteger,
        ForeignKey("images.seq"),
        primary_key=True,
        autoincrement=False,
        comment="Of the image that has the property.",
    ),
    comment="An index for finding images by a property; images.properties holds the truth.",
    sqlite_with_rowid=False,
)

folders: Final = Table(
    "folders",
    metadata,
    Column("owner", Kept(255), primary_key=True, comment="Who made it, and sees it while it is empty."),
    Column("path", Kept(4096), primary_key=True, comment="Its path and a slash."),
    Column("revision", BigInteger, nullable=False, comment="The change that made it what it is, unique."),
    Column("created_at", BigInteger, nullable=False, comment="UTC, in seconds since the epoch."),
    Column("removed_at", BigInteger, comment="When it was removed; NULL while it is there."),
    Column("mtime_ns", BigInteger, comment="The time of modification that somebody set, in nanoseconds; else NULL."),
    comment="Folders that were made by hand; those in the paths of images need no row.",
)

counters: Final = Table(
    "counters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="1: there is one row."),
    Column("revision", BigInteger, nullable=False, comment="The latest change. Every writer locks this row first."),
    Column("next_id", BigInteger, nullable=False, comment="The next identifier to generate."),
    Column("identity", Kept(64), nullable=False, comment="What no other registry has: stores keep one's data only."),
    Column("locks", BigInteger, comment="How many rows locks has; NULL: none ever. Spares every writer a look."),
    Column("has_dead_properties", Boolean, comment="Whether there ever was one; NULL: none. Spares writers a look."),
    comment="What is counted. Reading it is how writers line up, so that revisions become visible in their order.",
)

locks: Final = Table(
    "locks",
    metadata,
    Column("token", Kept(255), primary_key=True, comment="Never used twice."),
    Column("path", Kept(4096), nullable=False, comment="Its path and a slash; empty for the root of the tree."),
    Column("holder", Kept(255), nullable=False, comment="The user who may present the token."),
    Column("guards", Kept(255), comment="Whose images and folders it guards; NULL: everybody's."),
    Column("is_shared", Boolean, nullable=False, comment="Whether others may hold a shared one beside it."),
    Column("is_deep", Boolean, nullable=False, comment="Whether it holds for everything below its path."),
    Column("owner_xml", Kept(), nullable=False, comment="What the client said about its person."),
    Column("created_at", BigInteger, nullable=False, comment="UTC, in seconds since the epoch."),
    Column("expires_at", BigInteger, nullable=False, comment="From then on the row counts for nothing."),
    comment="Write locks (RFC 4918). Whoever writes clears away those that have expired.",
)

image_dead_properties: Final = Table(
    "image_dead_properties",
    metadata,
    Column("image_id", Kept(255), primary_key=True, comment="Of the image that has it."),
    Column("digest", Kept(32), primary_key=True, comment="Of the name: as good as the name, and short."),
    Column("name", Kept(), nullable=False, comment="In Clark's notation."),
    Column("value", Kept(), nullable=False, comment="As it came."),
    comment="What WebDAV clients keep beside images.",
)

folder_dead_properties: Final = Table(
    "folder_dead_properties",
    metadata,
    Column("owner", Kept(255), primary_key=True, comment="Who set it, and sees it."),
    Column("path", Kept(4096), primary_key=True, comment="The folder's path and a slash; empty for the root."),
    Column("digest", Kept(32), primary_key=True, comment="Of the name: as good as the name, and short."),
    Column("name", Kept(), nullable=False, comment="In Clark's notation."),
    Column("value", Kept(), nullable=False, comment="As it came."),
    comment="What WebDAV clients keep beside folders.",
)

holdings: Final = Table(
    "holdings",
    metadata,
    Column("status", Kept(16), primary_key=True, comment="As in images; nothing is counted of deleted ones."),
    Column("store", Kept(255), primary_key=True, comment="As in images."),
    Column("images", BigInteger, nullable=False, comment="How many there are."),
    Column("size_high", BigInteger, nullable=False, comment="The sum of their sizes' upper 31 bits."),
    Column("size_low", BigInteger, nullable=False, comment="The sum of their sizes' lower 32 bits."),
    comment="How much of what there is, kept up with each change: counting a million images takes a second.",
)

answers: Final = Table(
    "answers",
    metadata,
    Column("key", Kept(64), primary_key=True, comment="What the asker calls this one change, and no other."),
    Column("kept_at", BigInteger, nullable=False, comment="UTC, in seconds since the epoch."),
    Column("answer", Kept(), nullable=False, comment="What the change gave, as JSON, in ASCII."),
    comment="Changes that may be asked for again because their answer was lost; kept for minutes (once.KEPT).",
)

Index(SEQ_INDEX, images.c.seq, unique=True)
Index("ix_images_revision", images.c.revision, unique=True)
Index(
    "ix_images_location",
    images.c.location,
    # Only SQLite's own words stand here: those of other databases would load them, which `server_schema` does in time.
    sqlite_where=images.c.location.is_not(None),
)


def shelf_index(column: str, *, owned: bool) -> str:
    """Give the name of the index that keeps shelves (`owned`: each owner's part of them) in the order of a column."""
    return f"ix_images_owner_shelf_{column}" if owned else f"ix_images_shelf_{column}"


def grave_index(column: str) -> str:
    """Give the name of the index that keeps tombstones in the order of a column: created_at or changed_at."""
    return f"ix_images_grave_{column}"


def add_orders(table: Table, *, kept_by: Mapping[str, str], run: Sequence[str]) -> None:
    """Add an index per order, which leaves tombstones out where the database can do that.

    Equal values are in the order of ``seq``, which is part of the index: pages go on in the middle of equal ones.
    ``kept_by`` names columns that stand for others in indexes, ``run`` those that keep folders in order.
    """
    living, dead = table.c.shelf.is_not(None), table.c.grave.is_not(None)
    for column in SORTED_BY:
        for owned in (False, True):
            columns = [table.c.owner] if owned else []
            columns += [table.c.shelf, table.c[kept_by.get(column, column)], table.c.seq]
            if column == "created_at":
                # What is not wanted is passed by without a look at its row.
                columns += [table.c[name] for name in PASSED_BY]
            Index(shelf_index(column, owned=owned), *columns, sqlite_where=living)
    for column in ("created_at", "changed_at"):
        columns = [table.c.grave, table.c[column], table.c.seq]
        Index(grave_index(column), *columns, sqlite_where=dead)
    # Every path below a folder begins with the folder's, slash included: a folder is one run of each of these.
    ordered = [table.c.shelf, *(table.c[name] for name in run)]
    Index("ix_images_shelf_folder", *ordered, sqlite_where=living)
    Index("ix_images_owner_shelf_folder", table.c.owner, *ordered, sqlite_where=living)


add_orders(images, kept_by={}, run=("folder", "name", "place"))

Index("ix_folders_revision", folders.c.revision, unique=True)
Index("ix_folders_path", folders.c.path)
Index("ix_locks_path", locks.c.path)
Index("ix_folder_dead_properties_path", folder_dead_properties.c.path)
Index("ix_answers_kept_at", answers.c.kept_at)
