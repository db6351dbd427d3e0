# SPDX-License-Identifier: Apache-2.0
"""The tree: in which folder every image is, folders made by hand, and the order of namesakes.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

import sqlalchemy as sa
from alembic import op

from glancefs.paths import path_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PAGE = 1000


def upgrade() -> None:
    """Give every image its folder and its place."""
    op.add_column("images", sa.Column("folder", sa.Text))
    op.add_column("images", sa.Column("place", sa.BigInteger))
    _fill()
    living = sa.text("shelf IS NOT NULL")
    for name, columns in (
        ("ix_images_shelf_folder", ["shelf", "folder", "name", "place"]),
        ("ix_images_owner_shelf_folder", ["owner", "shelf", "folder", "name", "place"]),
    ):
        op.create_index(name, "images", columns, sqlite_where=living, postgresql_where=living)
    op.create_table(
        "folders",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("removed_at", sa.BigInteger),
        sa.Column("mtime_ns", sa.BigInteger),
        sa.PrimaryKeyConstraint("owner", "path", name="pk_folders"),
    )
    op.create_index("ix_folders_revision", "folders", ["revision"], unique=True)
    op.create_index("ix_folders_path", "folders", ["path"])


def _fill() -> None:
    images = sa.table("images", *map(sa.column, ("seq", "shelf", "name", "folder", "place")))
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
