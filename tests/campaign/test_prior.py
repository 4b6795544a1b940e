"""A prior shapes what is sampled, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from activelearning.campaign.config import PriorTerm, parse_config
from activelearning.campaign.continuation import check_continuation
from activelearning.campaign.prior import make_prior
from activelearning.campaign.tick import run
from activelearning.candidate import BoxCandidate
from activelearning.errors import ActiveLearningError, ConfigError

LEFT = """
import time

from activelearning.measurement import Measurement
from oracles import Oracle, QueuedOracle


class Left(Oracle):
    def evaluate_one(self, candidate):
        return candidate.values[0]


class Constant(Oracle):
    def evaluate_one(self, candidate):
        return 1.0


class Never(Oracle):
    def evaluate_one(self, candidate):
        return Measurement.failed("no idea")


class Slow(Oracle):
    n_asked = 0

    def evaluate_one(self, candidate):
        Slow.n_asked += 1
        assert Slow.n_asked < 10
        time.sleep(0.6)
        return candidate.values[0]


class Later(QueuedOracle):
    submit = find = poll = cancel = None
"""

EVOLUTIONARY = {"type": "evolutionary", "steps": 8, "warm_steps": 8, "population": 16}


@pytest.fixture
def sides(bench: Any) -> Any:
    """The bench with properties of the first coordinate."""
    bench.write("side.py", LEFT)
    return bench


def left(weight: float = 1.0, **more: Any) -> dict[str, Any]:
    """A term that wants the first coordinate low."""
    return {
        "property": "side",
        "oracle": "side.py:Left",
        "direction": "minimize",
        "reward": {"type": "exponential", "beta": 12.0, "floor": 1e-12},
        "weight": weight,
        **more,
    }


def campaign(
    bench: Any, name: str, prior: Any, **sections: Any
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """What a campaign of four rounds asked, in order, and figures of its first round."""
    acquisition = {"type": "mf_gibbon", "batch_size": 3, "pool_size": 32}
    if prior is not None:
        acquisition["prior"] = prior
    value = {**bench.value(), "sampler": EVOLUTIONARY, "stopping": {"max_rounds": 3}, **sections}
    config = parse_config({**value, "name": name, "acquisition": acquisition})
    with bench.open(config) as engine:
        run(engine)
        summary = engine.repository.round_summary(1)
    rows = bench.evaluations(name)
    asked = [
        (r.round, r.position, r.fidelity, r.candidate_key, r.acquisition, r.predicted_mean) for r in rows
    ]
    firsts = [r.candidate["values"][0] for r in rows if r.round > 0]
    return asked, {**summary, "mean_first": sum(firsts) / len(firsts)}


def test_without_weight_nothing_changes_bit_for_bit(sides: Any) -> None:
    none, _ = campaign(sides, "none", None)
    weightless, summary = campaign(sides, "weightless", [left(0.0)])
    assert weightless == none
    assert len(none) > 6
    assert "prior" not in summary


def test_samples_go_where_the_prior_wants_them(sides: Any) -> None:
    _, plain = campaign(sides, "plain", None)
    asked, shaped = campaign(sides, "shaped", [left()])
    again, _ = campaign(sides, "again", [left()])
    assert again == asked
    # Untrained samples lie about 0.5, of which the log prior is -6.
    assert shaped["prior"]["untrained"] == pytest.approx(-6.0, abs=0.5)
    assert shaped["prior"]["trained"] > -3.0
    assert shaped["mean_first"] < plain["mean_first"] - 0.15


def test_the_batch_is_chosen_by_utility_alone(sides: Any) -> None:
    """All of a short list is sampled, prior or not; the choice from it then is the same, bit for bit."""
    rows = "\n".join(f"{i / 13},{(5 * i % 13) / 13}" for i in range(13))
    sides.write("pool.csv", f"x,y\n{rows}\n")
    pool = {"space": {"type": "pool", "file": "pool.csv"}, "sampler": {"type": "pool"}}
    plain, _ = campaign(sides, "plain", None, **pool)
    shaped, summary = campaign(sides, "shaped", [left(3.0)], **pool)
    assert shaped == plain
    assert len(plain) > 6
    assert "prior" in summary


def test_terms_are_weighted_and_added(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text(LEFT)
    points = [BoxCandidate((x, 0.0)) for x in (0.0, 0.25, 1.0)]
    sections = [
        PriorTerm(**left(0.5)),
        PriorTerm(**left(2.0, property="other", reward={"type": "target", "target": 0.25, "beta": 4.0})),
        PriorTerm(**left(0.0, property="third")),
    ]
    prior = make_prior(sections, points, campaign="c", folder=tmp_path, workdir=tmp_path)
    assert prior is not None
    expected = [0.5 * -12.0 * x + 2.0 * -4.0 * (x - 0.25) ** 2 for x in (0.0, 0.25, 1.0)]
    assert prior(points).tolist() == pytest.approx(expected, rel=1e-12)
    reward = prior.on(lambda c, f: torch.full((len(c),), 5.0, dtype=torch.float64))
    assert reward(points, None).tolist() == pytest.approx([5.0 + e for e in expected], rel=1e-12)


def test_an_automatic_sharpness_is_that_of_untrained_samples(tmp_path: Path) -> None:
    (tmp_path / "side.py").write_text(LEFT)
    points = [BoxCandidate((i / 100, 0.0)) for i in range(101)]
    sections = [PriorTerm(**left(reward={"type": "exponential"}))]
    prior = make_prior(sections, points, campaign="c", folder=tmp_path, workdir=tmp_path)
    assert prior is not None
    # 8 over the interquartile range, 1/2; the median has the reward 1.
    assert prior(points[:101:50]).tolist() == pytest.approx([8.0, 0.0, -8.0])


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"oracle": "side.py:Lefft"}, "acquisition.prior.side.*no class 'Lefft'"),
        ({"oracle": "side.py:Later"}, "acquisition.prior.side.oracle.*answers later"),
        ({"oracle": "side.py:Never"}, "acquisition.prior.side: None of 256 candidates.*'side': no idea"),
        (
            {"oracle": "side.py:Constant", "reward": {"type": "exponential"}},
            "acquisition.prior.side.*not vary",
        ),
        ({"oracle": "side.py:Slow"}, "acquisition.prior.side: the oracle 'side.py:Slow' takes 0.6"),
        ({"oracle": None}, "acquisition.prior.side"),
        ({"reward": {"type": "exponential", "betta": 3}}, "acquisition.prior.side.reward.betta.*'beta'"),
        ({"params": {"what": 1}}, "acquisition.prior.side.params"),
        (
            {"reward": {"type": "exponential", "beta": 1.0, "caution": 1.0}},
            "side.*states no standard deviation",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_wrong_term_is_refused_before_anything_is_written(
    sides: Any, term: dict[str, Any], message: str, weight: float
) -> None:
    config = sides.config({"acquisition.prior": [{**left(weight), **term}]})
    with pytest.raises(ActiveLearningError, match=message):
        sides.open(config)
    assert not (sides.folder / "store.db").exists()


def test_a_property_stands_once_and_keys_are_known(sides: Any) -> None:
    with pytest.raises(ConfigError, match="'side' is there twice"):
        sides.open(sides.config({"acquisition.prior": [left(), left()]}))
    with pytest.raises(ConfigError, match=r"acquisition\.prior\.0\.wieght.*did you mean 'weight'"):
        sides.config({"acquisition.prior": [{**left(), "wieght": 1}]})
    with pytest.raises(ConfigError, match=r"acquisition\.prior\.0\.weight"):
        sides.config({"acquisition.prior": [left(-1.0)]})


def test_a_campaign_keeps_its_prior(bench: Any) -> None:
    old = bench.config({"acquisition.prior": [left()]}).to_json()
    new = bench.config({"acquisition.prior": [left(2.0)]}).to_json()
    with pytest.raises(ConfigError, match=r"acquisition\.prior\.0\.weight"):
        check_continuation(old, new)
