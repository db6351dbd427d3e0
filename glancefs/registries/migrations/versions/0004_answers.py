# SPDX-License-Identifier: Apache-2.0
"""The answers of changes that may be asked for again because an answer was lost on its way.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

import sqlalchemy as sa
from alembic import op

from glancefs.registries.server_schema import MYSQL
from glancefs.registries.texts import Kept

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of answers."""
    op.create_table(
        "answers",
        sa.Column("key", Kept(64), nullable=False),
        sa.Column("kept_at", sa.BigInteger, nullable=False),
        sa.Column("answer", Kept(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_answers"),
        **MYSQL,
    )
    op.create_index("ix_answers_kept_at", "answers", ["kept_at"])


def downgrade() -> None:
    """Forget them."""
    op.drop_table("answers")
