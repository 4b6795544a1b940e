"""The campaign store: the one mutable thing, and the truth."""
