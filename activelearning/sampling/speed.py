"""Whether an oracle is quick enough to be asked by a training, which asks many thousand times."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from activelearning.candidate import CrystalCandidate
from activelearning.errors import ConfigError
from activelearning.rewards import ProductReward

SLOW = 0.5  # seconds a crystal
LONG = 3600.0  # seconds in all
N_TIMED = 8


def check_speed(
    reward: ProductReward, oracles: Mapping[str, str], crystals: Sequence[CrystalCandidate], n_asked: int
) -> None:
    """Refuse an oracle that would keep a run for hours without a word.

    Args:
        reward: Asked about a few crystals.
        oracles: Name of each property's oracle.
        crystals: Some crystals of the space.
        n_asked: How often the run asks in all.

    Raises:
        ConfigError: an oracle is slow, and asked for more than an hour.
    """
    timed = crystals[1:N_TIMED]
    if not timed:
        return
    for term in reward.terms:
        term.source(crystals[:1])  # loads what is loaded once
        begin = time.monotonic()
        term.source(timed)
        seconds = (time.monotonic() - begin) / len(timed)
        if seconds > SLOW and seconds * n_asked > LONG:
            name = term.source.name
            raise ConfigError(
                f"The oracle {oracles[name]!r} of {name!r} takes {seconds:.2g} s a crystal, and this run asks it about "
                f"{n_asked} times, which takes {seconds * n_asked / 3600.0:.3g} hours. Name a quicker oracle in "
                f"`fidelities`, such as 'ml_proxy', or run a campaign (`activelearning run`), which asks a dear oracle "
                f"seldom."
            )
