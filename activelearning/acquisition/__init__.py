"""Cost-aware acquisitions over (candidate, fidelity)."""
