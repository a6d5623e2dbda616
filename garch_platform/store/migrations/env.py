"""Alembic environment: migrates over the connection that `Database.migrate` hands in.

Everything runs in that connection's transaction, so a migration that fails leaves nothing behind.
New revisions: ``Database.migration_config()`` gives the configuration for ``alembic.command.revision``.
"""

from __future__ import annotations

from alembic import context

from garch_platform.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    compare_type=True,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
