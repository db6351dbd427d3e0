# SPDX-License-Identifier: Apache-2.0
"""What WebDAV keeps: write locks on paths, and dead properties of images and folders.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

import sqlalchemy as sa
from alembic import op

from glancefs.registries.server_schema import MYSQL, key_computed
from glancefs.registries.texts import Kept, RawKey

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
        sa.Column("token", Kept(255), nullable=False),
        sa.Column("path", Kept(4096), nullable=False),
        sa.Column("holder", Kept(255), nullable=False),
        sa.Column("guards", Kept(255)),
        sa.Column("is_shared", sa.Boolean, nullable=False),
        sa.Column("is_deep", sa.Boolean, nullable=False),
        sa.Column("owner_xml", Kept(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_locks"),
        **MYSQL,
    )
    has_keys = op.get_bind().dialect.name != "sqlite"
    if not has_keys:
        op.create_index("ix_locks_path", "locks", ["path"])
    op.create_table(
        "image_dead_properties",
        sa.Column("image_id", Kept(255), nullable=False),
        sa.Column("digest", Kept(32), nullable=False),
        sa.Column("name", Kept(), nullable=False),
        sa.Column("value", Kept(), nullable=False),
        sa.PrimaryKeyConstraint("image_id", "digest", name="pk_image_dead_properties"),
        **MYSQL,
    )
    path: sa.Column[str] = sa.Column("path", Kept(4096), nullable=False)
    op.create_table(
        "folder_dead_properties",
        sa.Column("owner", Kept(255), nullable=False),
        path,
        sa.Column("digest", Kept(32), nullable=False),
        sa.Column("name", Kept(), nullable=False),
        sa.Column("value", Kept(), nullable=False),
        # Where keys are, paths are too long to be in the primary one.
        sa.Column("path_key", RawKey(), key_computed(path))
        if has_keys
        else sa.PrimaryKeyConstraint("owner", "path", "digest", name="pk_folder_dead_properties"),
        **MYSQL,
    )
    if has_keys:
        columns = ["owner", "path_key", "digest"]
        op.create_index("ix_folder_dead_properties_owner_path", "folder_dead_properties", columns, unique=True)
    else:
        op.create_index("ix_folder_dead_properties_path", "folder_dead_properties", ["path"])


def downgrade() -> None:
    """Forget them."""
    for table in ("folder_dead_properties", "image_dead_properties", "locks"):
        op.drop_table(table)
    for column in ("has_dead_properties", "locks"):
        op.drop_column("counters", column)
