"""The crystal task: the model of its oracle, and the optimum that is said of it."""

from __future__ import annotations

import math

import crystal_task
import numpy as np
import pytest

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run
from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import OracleContext
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError
from activelearning.report import trace

ARGYRODITE = CrystalCandidate(
    216, {"Li": 24, "P": 4, "S": 20, "Cl": 4}, (9.859, 9.859, 9.859, 90.0, 90.0, 90.0)
)


def oracle(tmp_path, unit="log10(S/cm)", **params):
    made = load_plugin("oracles", crystal_task.ORACLE)(**params)
    made.bind(OracleContext("c", "f", "log10_conductivity", unit, 1.0, "sqlite://", tmp_path))
    return made


def value_of(measurement):
    assert measurement.is_success, measurement.reason
    return measurement.values["log10_conductivity"].value


def test_the_formula_by_hand(tmp_path):
    """Li6PS5Cl worked out with numbers and nothing of the module."""
    anions, volume = 24, 9.859**3
    distance = (math.sqrt(2) * volume / anions) ** (1 / 3)
    x = 4 / 24
    window = distance / math.sqrt(3) - (1.84 * (1 - x) + 1.81 * x)
    mixing = -(x * math.log(x) + (1 - x) * math.log(1 - x)) / math.log(2)
    parts = 0.40 * (1 - math.exp(-((window - 0.42) ** 2) / (2 * 0.12**2)))
    parts += 0.30 * x**2 + 0.10 * (1 - mixing) + 0.15 * (1 - math.log(24) / math.log(48))
    barrier = 0.22 + 0.5 * (1 - math.exp(-parts / 0.5))
    q, kt = 1.602176634e-19, 1.380649e-23 * 300.0
    n, hop, free = 24 / volume * 1e30, distance * 1e-10 / math.sqrt(2), 1 - 24 / 44 + 1e-4
    sigma = n * q**2 * hop**2 * 1e13 * free / (6 * kt) * math.exp(-barrier * q / kt) / 100.0
    answer = value_of(oracle(tmp_path).evaluate([ARGYRODITE])[0])
    assert answer == pytest.approx(math.log10(sigma), abs=1e-9)
    assert -4.0 < answer < -2.0  # 1e-3 S/cm is what it is known for


def test_what_the_model_does_not_describe_fails_with_the_reason(tmp_path):
    cell = (5.0, 5.0, 5.0, 90.0, 90.0, 90.0)
    asked = [
        ARGYRODITE,
        BoxCandidate((0.5,)),
        CrystalCandidate(225, {"Li": 4, "Cl": 4}),
        CrystalCandidate(225, {"Li": 4, "Br": 4}, cell),
        CrystalCandidate(225, {"S": 4, "Cl": 4}, cell),
        CrystalCandidate(225, {"Li": 12, "Cl": 4}, cell),
    ]
    answers = oracle(tmp_path).evaluate(asked)
    assert answers[0].is_success
    for answer, reason in zip(
        answers[1:],
        ("not a BoxCandidate", "lattice", "not Br", "needs lithium", "8 sites for 12 Li"),
        strict=True,
    ):
        assert reason in answer.reason
    assert oracle(tmp_path).evaluate([]) == []


def test_another_unit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unit: log10\(S/cm\)"):
        oracle(tmp_path, unit="S/cm").check()


def test_every_composition_of_the_space_is_among_the_pairs():
    """What the space samples is in the enumeration, which is made from neutrality by arithmetic."""
    counts, groups = crystal_task.pairs()
    known = {
        (crystal_task.space().space_groups[g].number, *row)
        for row, g in zip(counts.tolist(), groups.tolist(), strict=True)
    }
    drawn = crystal_task.random_crystals(2000, seed=1)
    made = {(c.space_group, *(c.composition.get(e, 0) for e in crystal_task.ELEMENTS)) for c in drawn}
    assert len(made) > 300
    assert made <= known


def test_no_crystal_is_better_than_the_optimum():
    best = crystal_task.brute_force()
    crystal_task.space().validate(best.candidate)
    drawn = crystal_task.Crystals.of(crystal_task.random_crystals(5000, seed=2))
    values = crystal_task.log10_conductivity(drawn)
    assert values.max() < best.value
    assert best.value == pytest.approx(best.bound, abs=1e-4)
    # The neighbours of the optimum that the space holds: other cells of the same composition and group.
    a = best.candidate.cell[0]
    moved = [
        CrystalCandidate(
            best.candidate.space_group,
            best.candidate.composition,
            (a * s, a * s, a * s * t, *best.candidate.cell[3:]),
        )
        for s, t in ((0.99, 1.0), (1.01, 1.0), (1.0, 1.02), (1.0, 0.98))
    ]
    assert (crystal_task.log10_conductivity(crystal_task.Crystals.of(moved)) < best.value - 1e-4).all()


def test_ascent_on_the_whole_lattice_reaches_the_optimum_and_no_more():
    best = crystal_task.brute_force()
    counts, groups = crystal_task.pairs()
    wanted = [best.candidate.composition.get(e, 0) for e in crystal_task.ELEMENTS]
    numbers = np.array([g.number for g in crystal_task.space().space_groups])[groups]
    (row,) = np.flatnonzero((counts == wanted).all(axis=1) & (numbers == best.candidate.space_group))
    starts = np.random.default_rng(3).random((4, 6))
    reached = max(v for v, _ in crystal_task.ascend(counts[row], int(groups[row]), starts))
    assert reached == pytest.approx(best.bound, abs=1e-5)


def test_correlations_are_those_of_the_task():
    found = crystal_task.correlations(crystal_task.random_crystals(5000, seed=4))
    assert 0.85 < found["frozen"]["pearson"] < 0.95
    assert abs(found["free_volume"]["pearson"]) < 0.1
    assert found["free_volume"]["regret_of_its_best"] > 3.0


def test_a_campaign_runs(tmp_path):
    task = crystal_task.task()
    value = task.campaign(
        seed=1,
        total=3.0,
        sampler={"type": "gflownet", "steps": 3, "warm_steps": 2, "batch_size": 8, "hidden": [8]},
        surrogate={"type": "multi_fidelity_gp", "max_iterations": 3},
        acquisition={"batch_size": 2, "pool_size": 16},
        initial_design={"per_fidelity": {"hopping": 1, "frozen": 2, "free_volume": 2}},
        stopping={"max_rounds": 1},
    )
    config = parse_config(value)
    assert config.target.name == task.target == "hopping"
    with Engine.open(config, folder=tmp_path, store=f"sqlite:///{tmp_path / 's.db'}") as engine:
        run(engine)
        points = trace(engine.database, config.name)
    regrets = [task.regret(p.best) for p in points if p.best is not None]
    assert regrets
    assert min(regrets) > 0.0
    assert {p.fidelity for p in points} == set(crystal_task.COSTS)
