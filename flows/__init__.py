"""Prefect flows: a thin shell around the campaign engine."""
