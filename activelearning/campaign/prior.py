"""Making the prior of a campaign's sampler from its config."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from activelearning.campaign.config import PriorTerm
from activelearning.campaign.property_terms import make_shaping, property_oracle, usual_oracle
from activelearning.candidate import Candidate
from activelearning.errors import ActiveLearningError, ConfigError
from activelearning.rewards import OracleProperty, Prior, ProductReward, Term

# Untrained samples by which each term is tried, and `beta: auto` made a number.
N_TRIED = 256
# Seconds a candidate; a round asks for several thousand.
SLOW = 0.5
N_TIMED = 3


def make_prior(
    sections: Sequence[PriorTerm],
    untrained: Sequence[Candidate],
    *,
    campaign: str,
    folder: Path,
    workdir: Path,
) -> Prior | None:
    """The prior; None where no term has a weight.

    Args:
        sections: The config's terms; those of weight 0 are checked, too.
        untrained: `N_TRIED` samples of an untrained sampler.
        campaign: The campaign's name.
        folder: Folder of the config, where relative paths start.
        workdir: Folder for files of oracles; nothing is created in it here.

    Raises:
        ActiveLearningError: naming the key or plug-in at fault.
    """
    terms, weights = [], []
    names = [section.property for section in sections]
    for section in sections:
        key = f"acquisition.prior.{section.property}"
        if names.count(section.property) > 1:
            raise ConfigError(f"acquisition.prior: the property {section.property!r} is there twice.")
        if section.oracle is None:
            name, usual = usual_oracle(section.property)
            params = {**usual, **section.params}
        else:
            name, params = section.oracle, section.params
        oracle, _ = property_oracle(
            name,
            params,
            key=key,
            prop=section.property,
            unit=section.unit,
            campaign=campaign,
            folder=folder,
            workdir=workdir,
        )
        shaping = make_shaping(section.reward, section.direction, key=f"{key}.reward", folder=folder)
        term = ProductReward((Term(OracleProperty(oracle, section.property, section.unit), shaping),))
        try:
            _check_speed(term, name, untrained)
            term = term.fitted(untrained)
            term(untrained)
        except ActiveLearningError as error:
            raise type(error)(f"{key}: {error}") from error
        if section.weight > 0.0:
            terms.append(term)
            weights.append(section.weight)
    return Prior(tuple(terms), tuple(weights)) if terms else None


def _check_speed(term: ProductReward, oracle: str, untrained: Sequence[Candidate]) -> None:
    """Refuse an oracle that would keep a campaign for hours without a word, by the quickest of a few answers."""
    source = term.terms[0].source
    source(untrained[:1])  # loads what is loaded once
    taken = []
    for candidate in untrained[1 : 1 + N_TIMED]:
        begin = time.monotonic()
        source([candidate])
        taken.append(time.monotonic() - begin)
    if min(taken, default=0.0) > SLOW:
        raise ConfigError(
            f"the oracle {oracle!r} takes {min(taken):.2g} s a candidate, and a sampler asks its prior many thousand "
            f"times a round; name a quicker one, such as 'ml_proxy', and make the slow one a fidelity."
        )
