"""The campaign engine: config, steps, ledger, stopping."""
