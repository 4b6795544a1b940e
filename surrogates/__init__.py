"""Surrogates: Gaussian processes over candidates and fidelities."""
