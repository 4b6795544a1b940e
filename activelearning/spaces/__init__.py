"""Search spaces: box, pool, crystal."""
