"""Making the prior of a campaign's sampler from its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from activelearning.campaign.config import PriorTerm
from activelearning.campaign.property_terms import make_shaping, property_oracle, usual_oracle
from activelearning.candidate import Candidate
from activelearning.errors import ActiveLearningError, ConfigError
from activelearning.rewards import OracleProperty, Prior, ProductReward, Term

# Untrained samples by which each term is tried, and `beta: auto` made a number.
N_TRIED = 256


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
            term = term.fitted(untrained)
            term(untrained)
        except ActiveLearningError as error:
            raise type(error)(f"{key}: {error}") from error
        if section.weight > 0.0:
            terms.append(term)
            weights.append(section.weight)
    return Prior(tuple(terms), tuple(weights)) if terms else None
