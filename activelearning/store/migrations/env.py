"""Alembic's environment: migrations run on a connection handed over by `activelearning.store.database`."""

from alembic import context

from activelearning.store.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
