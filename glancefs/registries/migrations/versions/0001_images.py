# SPDX-License-Identifier: Apache-2.0
"""Images, the index of their properties, and what is counted.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

import uuid

import sqlalchemy as sa
from alembic import op

from glancefs.registries.server_schema import MYSQL, key_computed
from glancefs.registries.texts import Kept, RawKey

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SORTED_BY = ("created_at", "updated_at", "name", "size", "id")


def upgrade() -> None:
    """Make an empty registry, whose first image gets the identifier 1."""
    counters = op.create_table(
        "counters",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("next_id", sa.BigInteger, nullable=False),
        sa.Column("identity", Kept(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_counters"),
        **MYSQL,
    )
    op.bulk_insert(counters, [{"id": 1, "revision": 0, "next_id": 1, "identity": uuid.uuid4().hex}])
    op.create_table(
        "holdings",
        sa.Column("status", Kept(16), nullable=False),
        sa.Column("store", Kept(255), nullable=False),
        sa.Column("images", sa.BigInteger, nullable=False),
        sa.Column("size_high", sa.BigInteger, nullable=False),
        sa.Column("size_low", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("status", "store", name="pk_holdings"),
        **MYSQL,
    )
    _create_images()
    op.create_table(
        "image_properties",
        sa.Column("digest", Kept(32), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.ForeignKeyConstraint(["seq"], ["images.seq"], name="fk_image_properties_seq"),
        sa.PrimaryKeyConstraint("digest", "seq", name="pk_image_properties"),
        sqlite_with_rowid=False,
        **MYSQL,
    )


def _create_images() -> None:
    has_keys = op.get_bind().dialect.name != "sqlite"
    name: sa.Column[str] = sa.Column("name", Kept(1024), nullable=False)
    op.create_table(
        "images",
        sa.Column("id", Kept(255), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("shelf", sa.SmallInteger),
        sa.Column("grave", sa.SmallInteger),
        name,
        sa.Column("type", Kept(16), nullable=False),
        sa.Column("status", Kept(16), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("checksum", Kept(255)),
        sa.Column("store", Kept(255), nullable=False),
        sa.Column("location", Kept(700)),
        sa.Column("owner", Kept(255)),
        sa.Column("is_public", sa.Boolean, nullable=False),
        sa.Column("properties", Kept(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("disk_format", Kept(32)),
        sa.Column("container_format", Kept(32)),
        sa.Column("virtual_size", sa.BigInteger),
        sa.Column("min_disk", sa.BigInteger),
        sa.Column("min_ram", sa.BigInteger),
        sa.Column("protected", sa.Boolean, nullable=False),
        *([sa.Column("name_key", RawKey(), key_computed(name))] if has_keys else []),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        **MYSQL,
    )
    op.create_index("ix_images_seq", "images", ["seq"], unique=True)
    op.create_index("ix_images_revision", "images", ["revision"], unique=True)
    _create_partial_index("ix_images_location", ["location"], "location IS NOT NULL")
    for order in _SORTED_BY:
        column = "name_key" if has_keys and order == "name" else order
        passed_by = ["type", "status", "disk_format", "container_format"] if column == "created_at" else []
        living = "shelf IS NOT NULL"
        _create_partial_index(f"ix_images_shelf_{order}", ["shelf", column, "seq", *passed_by], living)
        _create_partial_index(f"ix_images_owner_shelf_{order}", ["owner", "shelf", column, "seq", *passed_by], living)
    for column in ("created_at", "changed_at"):
        _create_partial_index(f"ix_images_grave_{column}", ["grave", column, "seq"], "grave IS NOT NULL")


def _create_partial_index(name: str, columns: list[str], condition: str) -> None:
    """Create an index of some rows only, where the database has such ones."""
    op.create_index(name, "images", columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))


def downgrade() -> None:
    """Leave nothing."""
    for table in ("image_properties", "images", "holdings", "counters"):
        op.drop_table(table)
