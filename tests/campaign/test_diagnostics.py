"""Diagnostics that a campaign records with its rounds."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from activelearning import report
from activelearning.campaign.agreement import agreement
from activelearning.campaign.tick import run
from activelearning.candidate import BoxCandidate
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation

FIDELITIES = [Fidelity("low", 0, "y", None, 0.1, False), Fidelity("high", 1, "y", None, 1.0, True)]
NOISY = """
import random

from activelearning.measurement import Measurement
from oracles import Oracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        return sum(candidate.values) + 0.1 * random.Random(candidate.key).gauss(0, 1)


class High(Oracle):
    def evaluate_one(self, candidate):
        return Measurement.of("y", -sum((v - 0.3) ** 2 for v in candidate.values), std=0.05)
"""


def _rounds(bench: Any) -> list[dict[str, Any]]:
    rows = bench.rows('SELECT summary FROM rounds ORDER BY "index"')
    return [json.loads(row["summary"]) for row in rows]


def test_answers_are_judged_by_what_was_predicted_for_them(bench: Any) -> None:
    bench.write("oracle.py", NOISY)
    surrogate = {"type": "multi_fidelity_gp", "max_iterations": 20}
    changes = {
        "initial_design.per_fidelity.low": 5,
        "budget": {"total": 12.0, "per_round": 2.0},
        "safety.enabled": False,  # answers at random prove nothing, and would soon be asked of the target alone
    }
    with bench.open(bench.config(changes, surrogate=surrogate)) as engine:
        run(engine)
        made = report.forecasts(engine.database, "small")
        judged = report.diagnostics(engine.database, "small")
    rounds = _rounds(bench)
    assert len(rounds) > 3
    rows = {row.key: row for row in bench.evaluations()}
    values = {row["evaluation_key"]: row for row in bench.rows("SELECT * FROM measurements")}
    assert {f.key for f in made} == {key for key, row in rows.items() if row.round > 0}
    for index in range(2, len(rounds)):
        for fidelity in ("low", "high"):
            for which in ("all", "new"):
                wanted = [
                    row
                    for row in rows.values()
                    if row.fidelity == fidelity
                    and (row.round == index - 1 if which == "new" else 0 < row.round < index)
                ]
                found = rounds[index]["prequential"].get(fidelity, {"all": None, "new": None})[which]
                if not wanted:
                    assert found is None
                    continue
                logs, inside = [], []
                for row in wanted:
                    value = values[row.key]
                    # The model's own, the noise that it had learned by then, and the known standard error.
                    fitted = rounds[row.round]["surrogate"]
                    noise = fitted["noise_std"][fidelity]
                    assert row.predicted_noise == pytest.approx(noise, rel=1e-6)
                    deviation = math.hypot(row.predicted_std, noise, value["std"] or 0.0)
                    logs.append(stats.norm.logpdf(value["value"], row.predicted_mean, deviation))
                    inside.append(abs(value["value"] - row.predicted_mean) <= 1.6448536 * deviation)
                assert found["n"] == len(wanted)
                assert found["nlpd"] == pytest.approx(-np.mean(logs))
                assert found["coverage_90"] == pytest.approx(np.mean(inside))
    # What came in after the last fit is in the report, too.
    assert judged["low"]["forecasts"]["n"] == sum(f.fidelity == "low" for f in made)
    assert judged["low"]["left_out"]["rmse"] == rounds[-1]["surrogate"]["loo_rmse"]["low"]
    assert judged["high"]["target"] is None
    assert judged["low"]["target"]["learned"] == rounds[-1]["surrogate"]["correlation"][0][1]


def test_late_answers_are_new_when_they_come(bench: Any) -> None:
    """A laboratory answers two rounds later: its answer is judged once, by what was predicted when it was asked."""
    from activelearning.store.database import open_database
    from oracles.lab import list_requests, record

    config = bench.config(
        {
            "fidelities.1.oracle": "lab",
            "fidelities.1.max_in_flight": 2,
            "acquisition.batch_size": 1,
            "initial_design.per_fidelity": {"low": 3, "high": 1},
            "budget": {"total": 12.0, "per_round": 2.0},
        }
    )
    for tick in range(5):
        with bench.open(config) as engine:
            run(engine, rounds=1)
        if tick >= 2:
            database = open_database(bench.store)
            record(database, list_requests(database)[0]["key"], 0.25, std=0.05)
            database.close()
    rounds = _rounds(bench)
    predicted = [
        row
        for row in bench.evaluations()
        if row.fidelity == "high" and row.round > 0 and row.predicted_std is not None
    ]
    late = [
        row
        for row in predicted
        if row.state == "succeeded" and any(row.key in r.get("pending", ()) for r in rounds)
    ]
    assert late
    scores = [r["prequential"]["high"] for r in rounds[1:] if "high" in r["prequential"]]
    # Each is new once and counted from then on.
    assert sum(s["new"]["n"] for s in scores if s["new"]) == scores[-1]["all"]["n"] >= 1


def _answers(n: int, seed: int = 0) -> list[Observation]:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    found = []
    for a, b in x:
        found.append(Observation(BoxCandidate((a, b)), 0, math.exp(3 * a) - b))
        found.append(Observation(BoxCandidate((a, b)), 1, a - 0.1 * b))
    return found


def test_agreement_is_that_of_candidates_measured_at_both() -> None:
    known = _answers(8)
    alone = Observation(BoxCandidate((0.5, 0.5)), 0, 100.0)
    bound = Observation(BoxCandidate((0.6, 0.5)), 1, 100.0, None, Censoring.LOWER)
    beside = Observation(BoxCandidate((0.6, 0.5)), 0, 1.0)
    figures = {"correlation": [[1.0, -0.3], [-0.3, 1.0]]}
    found = agreement([*known, alone, bound, beside], FIDELITIES, figures, target=1)
    low, high = [o.value for o in known[::2]], [o.value for o in known[1::2]]
    assert list(found) == ["low"]
    assert found["low"]["n"] == 8
    assert found["low"]["pearson"] == pytest.approx(stats.pearsonr(low, high).statistic)
    assert found["low"]["spearman"] == pytest.approx(stats.spearmanr(low, high).statistic)
    assert found["low"]["learned"] == -0.3


def test_repeated_answers_are_averaged_and_ties_share_their_rank() -> None:
    known = _answers(5)
    doubled = [*known, Observation(known[0].candidate, 0, known[0].value + 2.0)]
    low, high = [o.value for o in known[::2]], [o.value for o in known[1::2]]
    low[0] += 1.0
    assert agreement(doubled, FIDELITIES, {}, target=1)["low"]["pearson"] == pytest.approx(
        stats.pearsonr(low, high).statistic
    )
    tied = [Observation(o.candidate, o.fidelity, float(round(o.value))) for o in known]
    low, high = [o.value for o in tied[::2]], [o.value for o in tied[1::2]]
    assert agreement(tied, FIDELITIES, {}, target=1)["low"]["spearman"] == pytest.approx(
        stats.spearmanr(low, high).statistic
    )


def test_each_fidelity_is_compared_with_the_target_of_its_property() -> None:
    def fidelity(name: str, index: int, prop: str, is_target: bool) -> Fidelity:
        return Fidelity(name, index, prop, None, 1.0, is_target)

    fidelities = [
        fidelity("low", 0, "y", False),
        fidelity("high", 1, "y", True),
        fidelity("gap", 2, "gap", True),
        fidelity("quick", 3, "gap", False),
        fidelity("hot", 4, "y_hot", False),
    ]
    values = torch.rand(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    known = [
        Observation(BoxCandidate((float(i), 0.0)), m, float(values[i, m])) for i in range(7) for m in range(5)
    ]
    correlation = torch.arange(25.0).reshape(5, 5).tolist()
    found = agreement(known, fidelities, {"correlation": correlation}, target=1)
    expected = {"low": (0, 1, "high"), "quick": (3, 2, "gap"), "hot": (4, 1, "high")}
    assert list(found) == list(expected)
    for name, (mine, its, target) in expected.items():
        assert found[name]["target"] == target
        assert found[name]["n"] == 7
        assert found[name]["pearson"] == pytest.approx(stats.pearsonr(values[:, mine], values[:, its])[0])
        assert found[name]["learned"] == correlation[mine][its]


def test_too_few_or_constant_answers_have_no_correlation() -> None:
    few = agreement(_answers(2), FIDELITIES, {}, target=1)["low"]
    assert few == {"target": "high", "n": 2, "pearson": None, "spearman": None, "learned": None}
    flat = [Observation(o.candidate, o.fidelity, 1.0 if o.fidelity else o.value) for o in _answers(5)]
    assert agreement(flat, FIDELITIES, {}, target=1)["low"]["pearson"] is None
