"""Prefect around the campaign engine: one task a step, artifacts per round. Nothing of a campaign lives here."""
