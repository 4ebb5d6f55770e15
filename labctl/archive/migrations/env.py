"""Run by Alembic on the connection, and within the transaction, that the archive gives it."""

from __future__ import annotations

from alembic import context

from labctl.archive.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
