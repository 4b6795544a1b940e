"""An evolutionary search as a sampler: a strong baseline on every kind of space."""

from samplers.evolutionary.sampler import EvolutionarySampler

__all__ = ["EvolutionarySampler"]
