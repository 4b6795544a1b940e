"""Crystallography: symmetry tables, charge, lattices, features, and the way to atoms."""
