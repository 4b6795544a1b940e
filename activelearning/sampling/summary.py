"""The figures of a sampling run, as JSON that is a stable interface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.rewards import LogLinear, ProductReward
from activelearning.sampling.crystals import Crystals
from activelearning.sampling.statistics import (
    Array,
    CrystalCounts,
    Reweighted,
    correlation,
    finite,
    quantiles,
)
from activelearning.sampling.training import Training

N_TOP = 100  # the best samples, whose variety is told apart


@dataclass(frozen=True)
class Drawn:
    """What a run has drawn and what it is compared with.

    Attributes:
        samples: Of the trained sampler.
        untrained: Of the untrained sampler: valid crystals by uniform choices.
        unrestricted: Of the trained sampler without the restrictions; None where there are none.
        validation: Known crystals of the space; None where none were given.
        log_probabilities: Log-densities of the first samples under the sampler, `m`; None where it can't tell them.
        why_no_probabilities: Why it can't.
    """

    samples: Crystals
    untrained: Crystals
    unrestricted: Crystals | None = None
    validation: Crystals | None = None
    log_probabilities: Array | None = None
    why_no_probabilities: str | None = None

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of the samples whose log-probability and log reward are known and finite."""
        if self.log_probabilities is None:
            return np.zeros(0, dtype=np.int64)
        log_rewards = self.samples.log_rewards[: len(self.log_probabilities)]
        return np.flatnonzero(np.isfinite(self.log_probabilities) & np.isfinite(log_rewards))

    @property
    def n_left_out(self) -> int:
        """Samples whose log-probability was asked for, and which are left out as it or the log reward is not finite."""
        return 0 if self.log_probabilities is None else len(self.log_probabilities) - len(self.rows)

    @property
    def correlated(self) -> tuple[Array, Array] | None:
        """Log-probabilities and log rewards of these samples; None where the sampler can't tell any."""
        if self.log_probabilities is None:
            return None
        return self.log_probabilities[self.rows], self.samples.log_rewards[self.rows]

    @property
    def reweighted(self) -> Reweighted | None:
        """The same samples, weighted to stand for the reward's own distribution; None where there are none."""
        return None if self.correlated is None or not len(self.rows) else Reweighted.of(*self.correlated)


def summarise(name: str, training: Training, reward: ProductReward, drawn: Drawn) -> dict[str, Any]:
    """The run in figures.

    Returns:
        `name`; `steps` of training; `n` samples, how many of them are `unique`, how many `failed` to have a property
        and how many are `floored`, with the least reward there is; `properties`: for each its `unit`, its `beta` and
        quantiles (`min`, `q25`, `median`, `q75`, `max`, of `n` crystals) over `samples`, `untrained`, `unrestricted`
        and `validation` (null where there is none) and under the reward's own distribution (`reward`: quartiles
        only); `log_reward`: its quantiles over samples; `log_z`: `learned` (of the reward to the sampler's own exponent
        over the whole space, so null where a part is sampled) and `estimated` from samples; `correlation` of
        log-probability and log reward (`pearson`, `spearman`, `n`; `left_out`: samples of which one of both is not
        finite) and `effective_sample_size`, null where the sampler can't tell probabilities; `distinct`: numbers of
        different space groups, lattice systems, point symmetries and elements among the samples, `distinct_top` among
        the best 100 of them.
    """
    samples = drawn.samples
    pair, weighed = drawn.correlated, drawn.reweighted
    learned = training.figures.get("log_z")
    top = [samples.crystals[row] for row in samples.ranking()[:N_TOP]]
    return {
        "name": name,
        "steps": training.step,
        "n": len(samples),
        "unique": len({crystal.key for crystal in samples.crystals}),
        "failed": samples.n_failed,
        "floored": _floored(reward, samples),
        "properties": {
            term.source.name: {
                "unit": term.source.unit,
                "beta": training.fitted[term.source.name].get("beta"),
                **_distributions(term.source.name, drawn),
            }
            for term in reward.terms
        },
        "log_reward": quantiles(samples.log_rewards),
        "log_z": {
            "learned": None if drawn.unrestricted is not None else finite(learned),
            "estimated": None if weighed is None else weighed.log_z,
        },
        "correlation": None if pair is None else {**correlation(*pair), "left_out": drawn.n_left_out},
        "effective_sample_size": None if weighed is None else weighed.effective_sample_size,
        "distinct": CrystalCounts.of(samples.crystals).distinct(),
        "distinct_top": CrystalCounts.of(top).distinct(),
    }


def _floored(reward: ProductReward, crystals: Crystals) -> int:
    """Crystals with the least reward of every property, as far as the shapings have one."""
    if not all(isinstance(term.shaping, LogLinear) for term in reward.terms):
        return 0
    least = sum(math.log(term.shaping.floor) for term in reward.terms if isinstance(term.shaping, LogLinear))
    return int((crystals.log_rewards <= least + 1e-9).sum())


def _distributions(name: str, drawn: Drawn) -> Mapping[str, Any]:
    weighed, values = drawn.reweighted, drawn.samples.properties[name]
    sets = {
        "samples": drawn.samples,
        "untrained": drawn.untrained,
        "unrestricted": drawn.unrestricted,
        "validation": drawn.validation,
    }
    found: dict[str, Any] = {
        key: None if crystals is None else quantiles(crystals.properties[name])
        for key, crystals in sets.items()
    }
    found["reward"] = None if weighed is None else weighed.quantiles(values[drawn.rows])
    return found
