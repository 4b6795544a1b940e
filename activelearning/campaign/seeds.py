"""Random seeds that depend on what is computed, never on when or in which order."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, round_index: int, component: str) -> int:
    """A 63-bit seed for one component's work in one round.

    Args:
        seed: The campaign's seed.
        round_index: The round.
        component: What the seed is for, such as `sampler.fit`.
    """
    name = int.from_bytes(hashlib.sha256(component.encode()).digest()[:16], "big")
    state = np.random.SeedSequence([seed, round_index, name]).generate_state(1, np.uint64)
    return int(state[0]) >> 1
