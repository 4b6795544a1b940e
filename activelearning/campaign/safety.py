"""How far a campaign trusts the sources that are not its target.

Cheap answers pay where they tell about the target, and lead astray where they do not. A correlation fitted to a handful
of answers is no proof, so trust is earned by prediction: before each answer of the target comes in, it is foretold by
the surrogate of all fidelities and by one that knows the target's answers alone, and the difference of their log
predictive densities is what the other fidelities were worth (the prequential evidence of Dawid, J. R. Stat. Soc. A 147,
1984).

    proven      evidence >= 2: the others may have up to `1 - target_share` of what is spent beyond `credit`
    unproven    in between: beyond `credit`, a share of the total budget, as much of that as there is evidence for it
    refuted     evidence <= -2: the credit alone, and the target's queries are chosen as if there were no others

Of the target's queries a share, `independent_share`, is always chosen as if there were no other fidelities, so that a
source that misleads only in places can't hide the best candidates for good; it is one half while one of the latest
answers is one that they had all but ruled out, until the others prove it the exception. So the loss against a campaign
that has the target alone is bounded, which is the aim of Mikkola, Martinelli, Filstroff & Kaski, *Multi-fidelity
Bayesian optimization with unreliable information sources*, AISTATS 2023; they bound it by a budget for the target's own
proposals, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from activelearning.campaign.config import SafetyConfig
from activelearning.contracts.surrogate import Surrogate
from activelearning.measurement import Censoring, MeasuredValue

EVIDENCE = 2.0  # nats for or against the other fidelities that decide; odds of seven
_MISLED_SHARE = 0.5  # of the target's queries chosen independently while an answer was all but ruled out
_LATEST = 10  # answers of the target that evidence rests on
_FEWEST = 3  # answers of the target from which predictions are judged
_MOST = 3.0  # nats that one answer may weigh: an outlier must not decide alone, nor for ever


class Trust(StrEnum):
    """What the target's answers have said of the other fidelities."""

    PROVEN = "proven"
    UNPROVEN = "unproven"
    REFUTED = "refuted"


@dataclass(frozen=True)
class Expectation:
    """What was foretold of one answer of the target, its noise included, in its unit.

    Attributes:
        candidate: Key of the candidate.
        joint: Mean and standard deviation by the surrogate of all fidelities.
        alone: The same by the one of the target alone.
        independent: Whether the query was chosen as if there were no other fidelities.
        n_known: Answers of the target that both surrogates knew.
    """

    candidate: str
    joint: tuple[float, float]
    alone: tuple[float, float]
    independent: bool
    n_known: int

    def to_json(self) -> dict[str, Any]:
        """As a round's summary keeps it."""
        return {
            "candidate": self.candidate,
            "joint": list(self.joint),
            "alone": list(self.alone),
            "independent": self.independent,
            "n_known": self.n_known,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Expectation:
        """Read it back."""
        (jm, js), (am, as_) = value["joint"], value["alone"]
        return cls(value["candidate"], (jm, js), (am, as_), bool(value["independent"]), int(value["n_known"]))


@dataclass(frozen=True)
class Standing:
    """Where a campaign stands before a round.

    Attributes:
        scores: What the other fidelities were worth for each answer of the target, in nats.
        n_target: Queries of the target chosen so far, the initial design aside.
        n_independent: Those of them chosen as if there were no other fidelities.
        spent_target: Spent and reserved at the target, the initial design aside.
        spent_others: The same at the others.
    """

    scores: Sequence[float] = ()
    n_target: int = 0
    n_independent: int = 0
    spent_target: float = 0.0
    spent_others: float = 0.0

    @property
    def evidence(self) -> float:
        """For the other fidelities, in nats, by the latest answers: surrogates learn, and trust follows."""
        return math.fsum(self.scores[-_LATEST:])

    @property
    def is_misled(self) -> bool:
        """Whether an answer was all but ruled out because of the others, though the target alone had room for it.

        Of the latest answers, and unless all of them together speak for the others nevertheless.
        """
        return self.trust is not Trust.PROVEN and any(score <= -_MOST for score in self.scores[-_LATEST:])

    @property
    def trust(self) -> Trust:
        """The verdict."""
        if self.evidence >= EVIDENCE:
            return Trust.PROVEN
        return Trust.REFUTED if self.evidence <= -EVIDENCE else Trust.UNPROVEN

    def allowance(self, config: SafetyConfig, total: float) -> float:
        """What the other fidelities may still cost.

        Args:
            config: The shares.
            total: The whole budget.
        """
        allowed = config.credit * total
        proved = min(max(self.evidence / EVIDENCE, 0.0), 1.0)
        allowed += proved * self.spent_target * (1.0 - config.target_share) / config.target_share
        return max(allowed - self.spent_others, 0.0)

    def n_due(self, config: SafetyConfig) -> int:
        """Queries of the target that are to be chosen independently now."""
        share = max(config.independent_share, _MISLED_SHARE if self.is_misled else 0.0)
        return max(int(share * self.n_target + 1e-9) - self.n_independent, 0)


@dataclass(frozen=True)
class Guard:
    """What a round's proposals are held to.

    Attributes:
        standing: Where the campaign stands.
        config: The shares.
        total: The whole budget.
        alone: Surrogate of the target alone, its one fidelity of index 0.
    """

    standing: Standing
    config: SafetyConfig
    total: float
    alone: Surrogate

    @property
    def allowance(self) -> float:
        """What fidelities other than the target may cost in this round."""
        return self.standing.allowance(self.config, self.total)

    def summary(self, expectations: Sequence[Expectation]) -> dict[str, Any]:
        """As a round's summary keeps it."""
        return {
            "trust": str(self.standing.trust),
            "evidence": self.standing.evidence,
            "n_judged": len(self.standing.scores),
            "is_misled": self.standing.is_misled,
            "allowance": self.allowance,
            "expected": [expected.to_json() for expected in expectations],
        }


def judge(foretold: Iterable[tuple[Expectation, MeasuredValue | None]]) -> list[float]:
    """What the other fidelities were worth for each answer, in nats, from -3 to 3.

    What was foretold from fewer than three answers of the target is not judged: neither surrogate knew its scale.

    Args:
        foretold: What was foretold of each query, and its answer; None, which is left out, where there is none yet.
    """
    scores = []
    for expected, value in foretold:
        if value is not None and expected.n_known >= _FEWEST:
            difference = log_score(value, *expected.joint) - log_score(value, *expected.alone)
            scores.append(max(-_MOST, min(_MOST, difference)))
    return scores


def log_score(value: MeasuredValue, mean: float, std: float) -> float:
    """Log density of an answer under a normal prediction; of a bound, the log probability of the side it leaves.

    Args:
        value: The answer; a known standard error adds to the prediction's.
        mean: Predicted mean.
        std: Predicted standard deviation, the fidelity's noise included.
    """
    deviation = math.hypot(std, value.std or 0.0)
    z = (value.value - mean) / deviation
    if value.censoring is Censoring.NONE:
        return -0.5 * z * z - math.log(deviation) - 0.5 * math.log(2.0 * math.pi)
    return _log_cdf(z if value.censoring is Censoring.UPPER else -z)


def _log_cdf(z: float) -> float:
    from scipy.special import log_ndtr

    return float(log_ndtr(z))
