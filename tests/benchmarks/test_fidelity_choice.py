"""The figures by which methods are compared, on curves made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import fidelity_choice as choice
import numpy as np
import pytest
import synthetic_task
from scipy import stats

from activelearning.campaign.config import parse_config

# (spent, regret) after each answer
CURVE = [(1.0, 4.0), (2.0, 4.0), (3.5, 0.5), (9.0, 0.0)]


def test_regret_is_that_of_what_was_paid_for() -> None:
    found = [choice.regret_at(CURVE, cost) for cost in (0.5, 1.0, 3.4, 3.5, 8.0, 20.0)]
    assert found == [4.0, 4.0, 4.0, 0.5, 0.5, 0.0]


def test_the_price_is_where_a_regret_is_first_reached() -> None:
    assert [choice.price(CURVE, regret, 10.0) for regret in (5.0, 4.0, 1.0, 0.5, 0.1)] == [
        0.1,
        0.1,
        0.35,
        0.35,
        0.9,
    ]
    assert choice.price(CURVE[:-1], 0.1, 10.0) == math.inf


@pytest.mark.parametrize(
    ("maximize", "optimum", "bests"), [(True, 5.0, [1.0, 4.5]), (False, -5.0, [-1.0, -4.5])]
)
def test_regret_has_the_direction_of_the_task(maximize: bool, optimum: float, bests: list[float]) -> None:
    points = [[0.1, None, "low"], [1.1, bests[0], "high"], [1.2, bests[0], "low"], [2.2, bests[1], "high"]]
    run = {"optimum": optimum, "points": points}
    assert choice.regrets(run, maximize) == [(1.1, 4.0), (1.2, 4.0), (2.2, 0.5)]


@pytest.mark.parametrize("n", [6, 10, 20])
def test_intervals_of_medians_hold_what_they_say(n: int) -> None:
    """Ranks against the binomial distribution: the median lies between them with 95 % or more, and not much more."""
    median, low, high = choice.interval_of_median([float(i) for i in range(n)])
    assert median == (n - 1) / 2
    assert low + high == n - 1
    below = stats.binom(n, 0.5).cdf
    covered = below(n - 1 - low) - below(
        low
    )  # of the n draws more than `low` and at most n - 1 - low are below it
    assert 0.95 <= covered < 0.98
    assert choice.interval_of_median([0.0, 1.0, math.inf, math.inf, math.inf, 2.0])[2] == math.inf


@pytest.mark.parametrize("rho", [-1.0, 0.0, 0.5, 0.95])
def test_a_cheap_source_correlates_as_stated(rho: float) -> None:
    _, target, cheap = synthetic_task.pool(rho, seed=3)
    assert np.corrcoef(target, cheap)[0, 1] == pytest.approx(rho, abs=1e-9)


def test_a_source_that_misleads_in_places_hides_the_best() -> None:
    points, target, cheap = synthetic_task.pool("places", seed=3)
    best = target.argmax()
    assert cheap[best] == pytest.approx(target[best] - synthetic_task.DEPTH, abs=0.2)
    far = np.linalg.norm(points - points[best], axis=1) > 3 * synthetic_task.DENT
    assert np.corrcoef(target[far], cheap[far])[0, 1] > 0.7
    assert np.linalg.norm(points[cheap.argmax()] - points[best]) > 2 * synthetic_task.DENT


@pytest.mark.parametrize("suite", ["box", "sweep"])
def test_methods_have_the_same_budget_and_first_design(suite: str, tmp_path: Path) -> None:
    name = choice.task_names(suite)[0]
    task = choice.make_task(suite, name, 0, tmp_path)
    for method in choice.METHODS[suite]:
        if method in choice.BOTORCH:
            continue
        config = parse_config(choice.config_of(choice.Job.of(suite, name, method, 0, str(tmp_path)), task))
        assert config.budget.total == pytest.approx(1.2 * task.total)
        assert config.initial_design.share * config.budget.total == pytest.approx(
            choice.INITIAL_SHARE[suite] * task.total
        )
        is_alone = method in ("single_fidelity", "random")
        assert len(config.fidelities) == (1 if is_alone else len(task.fidelities))


def _keep(job: choice.Job, task: Any, bests: list[float]) -> None:
    points = [(float(i + 1), best, "high") for i, best in enumerate(bests)]
    kept = {
        "points": points,
        "top": [0.0, 0.0],
        "cpu_seconds": 1.0,
        "optimum": task.optimum,
        "total": task.total,
    }
    job.path.write_text(json.dumps({**kept, "config": choice.digest_of(job, task)}))


def test_only_campaigns_of_todays_config_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Borehole is maximised: `joint` reaches in three answers what the single-fidelity run reaches in ten."""
    work = str(tmp_path)
    task = choice.make_task("box", "borehole", 0, tmp_path)
    best = task.optimum
    _keep(choice.Job.of("box", "borehole", "single_fidelity", 0, work), task, [best - 100] * 9 + [best - 10])
    _keep(choice.Job.of("box", "borehole", "joint", 0, work), task, [best - 100] * 2 + [best - 1])
    found = choice.summarise("box", 2, work)
    assert list(found) == ["borehole"]
    joint, single = (found["borehole"]["methods"][m] for m in ("joint", "single_fidelity"))
    assert joint["price"] == pytest.approx([3 / 15] * 3)
    assert joint["price_of_reaching"] == pytest.approx([3 / 10] * 3)
    assert joint["log10_regret_against_single"] == pytest.approx([-1.0] * 3)
    assert single["log10_regret_of_joint_against_it"] == pytest.approx([-1.0] * 3)
    assert "| borehole (15) | joint | 1 | 1 | 0.20 [0.20, 0.20] |" in choice.table(
        "box", found, "here", "today"
    )
    monkeypatch.setattr(choice, "BATCH", 5)
    assert choice.summarise("box", 2, work) == {}
