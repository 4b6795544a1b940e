"""Alembic migrations of the campaign store."""
