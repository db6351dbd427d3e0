# SPDX-License-Identifier: Apache-2.0
"""What WebDAV keeps: write locks on paths, and dead properties of images and folders.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; nothing is in them, and what is counted of them may stay unset."""
    op.add_column("counters", sa.Column("locks", sa.BigInteger))
    op.add_column("counters", sa.Column("has_dead_properties", sa.Boolean))
    op.create_table(
        "locks",
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("guards", sa.Text),
        sa.Column("is_shared", sa.Boolean, nullable=False),
        sa.Column("is_deep", sa.Boolean, nullable=False),
        sa.Column("owner_xml", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_locks"),
    )
    op.create_index("ix_locks_path", "locks", ["path"])
    op.create_table(
        "image_dead_properties",
        sa.Column("image_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "digest", name="pk_image_dead_properties"),
    )
    op.create_table(
        "folder_dead_properties",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("owner", "path", "digest", name="pk_folder_dead_properties"),
    )
    op.create_index("ix_folder_dead_properties_path", "folder_dead_properties", ["path"])
