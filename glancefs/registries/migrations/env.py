# SPDX-License-Identifier: Apache-2.0
"""Where Alembic finds the database: the connection, and the transaction, of whoever calls it.

Threading: run by one thread, inside `glancefs.registries.upgrade`.
"""

from alembic import context

from glancefs.registries.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # The caller's transaction holds all the steps: a database is never left between two schemas.
    transactional_ddl=False,
    render_as_batch=True,
)
context.run_migrations()
