# SPDX-License-Identifier: Apache-2.0
"""The tree: in which folder every image is, folders made by hand, and the order of namesakes.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

import sqlalchemy as sa
from alembic import op

from glancefs.paths import path_of
from glancefs.registries.server_schema import MYSQL, key_computed, leaf_computed
from glancefs.registries.texts import Kept, Leaf, RawKey

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PAGE = 1000
_INDEXES: dict[str, list[str]] = {"ix_images_shelf_folder": [], "ix_images_owner_shelf_folder": ["owner"]}


def upgrade() -> None:
    """Give every image its folder and its place."""
    op.add_column("images", sa.Column("folder", Kept(4096)))
    op.add_column("images", sa.Column("place", sa.BigInteger))
    _fill()
    has_keys = op.get_bind().dialect.name != "sqlite"
    if has_keys:
        name: sa.Column[str] = sa.Column("name", Kept(1024))
        folder: sa.Column[str] = sa.Column("folder", Kept(4096))
        op.add_column("images", sa.Column("folder_key", RawKey(), key_computed(folder)))
        op.add_column("images", sa.Column("leaf", Leaf(), leaf_computed(name, folder)))
    living = sa.text("shelf IS NOT NULL")
    run = ["shelf", "folder_key", "leaf", "place"] if has_keys else ["shelf", "folder", "name", "place"]
    for index, columns in _INDEXES.items():
        op.create_index(index, "images", [*columns, *run], sqlite_where=living, postgresql_where=living)
    path: sa.Column[str] = sa.Column("path", Kept(4096), nullable=False)
    op.create_table(
        "folders",
        sa.Column("owner", Kept(255), nullable=False),
        path,
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("removed_at", sa.BigInteger),
        sa.Column("mtime_ns", sa.BigInteger),
        # Where keys are, paths are too long to be in the primary one.
        sa.Column("path_key", RawKey(), key_computed(path))
        if has_keys
        else sa.PrimaryKeyConstraint("owner", "path", name="pk_folders"),
        **MYSQL,
    )
    if has_keys:
        op.create_index("ix_folders_owner_path", "folders", ["owner", "path_key"], unique=True)
    op.create_index("ix_folders_revision", "folders", ["revision"], unique=True)
    op.create_index("ix_folders_path", "folders", ["path_key" if has_keys else "path"])


def downgrade() -> None:
    """Forget folders."""
    op.drop_table("folders")
    for index in _INDEXES:
        op.drop_index(index, "images")
    keys = ["leaf", "folder_key"] if op.get_bind().dialect.name != "sqlite" else []
    for column in (*keys, "place", "folder"):
        op.drop_column("images", column)


def _fill() -> None:
    texts = [sa.column("name", Kept(1024)), sa.column("folder", Kept(4096))]
    images = sa.table("images", *map(sa.column, ("seq", "shelf", "place")), *texts)
    connection = op.get_bind()
    connection.execute(sa.update(images).values(place=images.c.seq))
    page = (
        sa.select(images.c.seq, images.c.name)
        .where(images.c.seq > sa.bindparam("after"), images.c.shelf.is_not(None))
        .order_by(images.c.seq)
        .limit(_PAGE)
    )
    fill = sa.update(images).where(images.c.seq == sa.bindparam("one")).values(folder=sa.bindparam("its_folder"))
    after = 0
    while rows := connection.execute(page, {"after": after}).all():
        after = rows[-1].seq
        connection.execute(fill, [{"one": row.seq, "its_folder": _folder(row.name)} for row in rows])


def _folder(name: str) -> str:
    folder, slash, _ = path_of(name).rpartition("/")
    return folder + slash
