"""The pool task: materials of a table, predictions that have not seen them, and answers by candidate."""

from __future__ import annotations

import csv

import numpy as np
import obelix_task
import pytest

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run
from activelearning.report import trace
from activelearning.spaces.pool import PoolSpace
from oracles.ml_proxy.data import CrystalTable


def crystal_table(compositions, groups, values, bounds):
    n = len(values)
    return CrystalTable(
        ids=tuple("abcdefgh"[:n]),
        compositions=tuple(compositions),
        space_groups=np.array(groups),
        lattices=np.tile([5.0, 5.0, 5.0, 90.0, 90.0, 90.0], (n, 1)),
        values=np.array(values),
        is_bound=np.array(bounds),
        sources=tuple(f"paper {i}" for i in range(n)),
    )


def test_entries_of_one_material_are_one_candidate():
    salt, twice, other = {"Li": 4.0, "Cl": 4.0}, {"Li": 8.0, "Cl": 8.0}, {"Li": 4.0, "Br": 4.0}
    table = crystal_table(
        [salt, twice, salt, salt, other, other, salt, salt],
        [225, 225, 225, 225, 225, 225, 221, 225],
        [-5.0, -3.0, -10.0, -4.0, -8.0, -10.0, -2.0, -6.0],
        [False, False, True, False, True, True, False, False],
    )
    # Salt in 225: values -6, -5, -4, -3 and a bound; the lower median is -5. Of two bounds the least counts.
    assert obelix_task.materials(table) == [[0, 1, 2, 3, 7], [5, 4], [6]]


@pytest.fixture(scope="module")
def pool(obelix, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTIVELEARNING_OBELIX", str(obelix))
        return obelix_task.prepare(tmp_path_factory.mktemp("obelix"))


def test_the_pool_holds_every_material_once(obelix, pool):
    table = obelix_task.read_training(obelix)
    space = PoolSpace(pool.file)
    assert len(space.candidates) == len(pool.ids) == len(obelix_task.materials(table))
    assert pool.n_entries.sum() == len(table)
    with pool.table.open(newline="") as file:
        keys = [row["key"] for row in csv.DictReader(file)]
    assert keys == [c.key for c in space.candidates]
    assert space.n_features == len(pool.names) < 80
    assert pool.best == max(v for v, b in zip(table.values, table.is_bound, strict=True) if not b)


def test_out_of_fold_predictions_know_nothing_of_the_answer(obelix, pool):
    """Shifting the answers of one group of rows moves predictions elsewhere, and none of the group's own."""
    table = obelix_task.read_training(obelix)
    x = obelix_task.describe(table, obelix)
    rows = np.flatnonzero(table.groups() == table.groups()[0])
    shifted = table.values.copy()
    shifted[rows] += 5.0
    moved = CrystalTable(**{**vars(table), "values": shifted})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oracles.ml_proxy.forest_training.N_TREES", 5)
        before, after = (obelix_task.out_of_fold(t, x) for t in (table, moved))
    for name in ("proxy", "composition"):
        assert (before[name][rows] == after[name][rows]).all()
        assert (before[name] != after[name]).any()


def test_the_files_are_made_once_and_anew_for_other_data(obelix, pool, monkeypatch, tmp_path):
    folder = pool.file.parent.parent
    monkeypatch.setenv("ACTIVELEARNING_OBELIX", str(obelix))
    monkeypatch.setattr(obelix_task, "_write", lambda *_: pytest.fail("made again"))
    assert (obelix_task.prepare(folder).features == pool.features).all()
    lines = (obelix / "all.csv").read_text().splitlines(keepends=True)
    (tmp_path / "fewer.csv").write_text("".join(lines[:-1]))
    monkeypatch.setenv("ACTIVELEARNING_OBELIX", str(tmp_path / "fewer.csv"))
    made = []
    monkeypatch.setattr(obelix_task, "_write", lambda *paths: made.append(paths))
    with pytest.raises(FileNotFoundError):
        obelix_task.prepare(folder)
    assert len(made) == 1


def test_a_campaign_runs(obelix, pool, monkeypatch, tmp_path):
    monkeypatch.setenv("ACTIVELEARNING_OBELIX", str(obelix))
    task = obelix_task.task(pool.file.parent.parent)
    config = parse_config(
        task.campaign(
            seed=0,
            total=4.0,
            surrogate={"type": "multi_fidelity_gp", "max_iterations": 3},
            acquisition={"batch_size": 2, "pool_size": 64},
            initial_design={"per_fidelity": {"measured": 2, "proxy": 4, "composition": 4}},
            stopping={"max_rounds": 1},
        )
    )
    with Engine.open(config, folder=tmp_path, store=f"sqlite:///{tmp_path / 's.db'}") as engine:
        run(engine)
        points = trace(engine.database, config.name)
    assert {p.fidelity for p in points} == set(obelix_task.COSTS)
    regrets = [task.regret(p.best) for p in points if p.best is not None]
    assert regrets
    assert min(regrets) >= 0.0
