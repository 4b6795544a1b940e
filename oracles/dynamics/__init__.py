"""Molecular dynamics that measure conductivity, whoever computes the forces: motion, samples on disk, what they say."""
