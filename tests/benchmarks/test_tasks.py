"""What the harness is handed."""

from __future__ import annotations

import pytest
from tasks import Task

TASK = Task(
    name="t",
    space={"type": "box", "bounds": [[0, 1]]},
    objective={"property": "y", "direction": "minimize"},
    fidelities=[
        {"name": "low", "oracle": "o", "cost": 0.1},
        {"name": "mid", "oracle": "o", "cost": 0.2},
        {"name": "high", "oracle": "o", "cost": 1.0, "target": True},
    ],
    optimum=-2.0,
    total=10.0,
    sections={"sampler": {"type": "random"}},
)


def test_regret_is_what_a_best_value_lacks_in_either_direction():
    assert TASK.regret(-1.5) == pytest.approx(0.5)
    rising = Task("t", {}, {"direction": "maximize"}, [], 2.0, 1.0)
    assert rising.regret(1.5) == pytest.approx(0.5)


def test_the_target_stays_whatever_fidelities_are_kept():
    assert [f["name"] for f in TASK.with_fidelities().fidelities] == ["high"]
    assert [f["name"] for f in TASK.with_fidelities("low").fidelities] == ["low", "high"]
    with pytest.raises(ValueError, match="low, mid, high, not lowest"):
        TASK.with_fidelities("lowest")


def test_sections_of_a_campaign_replace_those_of_the_task():
    value = TASK.campaign(seed=3, sampler={"type": "gflownet"}, stopping={"max_rounds": 1})
    assert (value["name"], value["seed"], value["budget"]) == ("t-3", 3, {"total": 10.0})
    assert value["sampler"] == {"type": "gflownet"}
    assert value["stopping"] == {"max_rounds": 1}
    assert TASK.campaign(seed=0, total=4)["budget"] == {"total": 4}
    assert TASK.campaign(seed=0)["sampler"] == {"type": "random"}
