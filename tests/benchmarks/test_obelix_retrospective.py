"""What the retrospective campaign keeps of its sources' answers, and how it counts."""

from pathlib import Path

import numpy as np
import obelix_retrospective as retrospective
import pytest

from activelearning.campaign.config import parse_config


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A file of answers, and sources whose identities can be changed."""
    identities = {"bvse": "a", "md": "b"}
    monkeypatch.setattr(retrospective, "ANSWERS", tmp_path / "answers.json")
    monkeypatch.setattr(retrospective, "identity_of", identities.__getitem__)
    return identities


def test_answers_are_kept_by_source_and_key(answers):
    assert retrospective.answered() == {"bvse": {}, "md": {}}
    said = {"bvse": {"x": {"value": 0.3}}, "md": {"x": {"value": None, "reason": "melted"}}}
    retrospective.keep(said)
    assert retrospective.answered() == said


def test_answers_of_other_weights_are_asked_for_again(answers):
    said = {"bvse": {"x": {"value": 0.3}}, "md": {"x": {"value": -1.0}}}
    retrospective.keep(said)
    answers["md"] = "of another student"
    assert retrospective.answered() == {"bvse": said["bvse"], "md": {}}


def test_weights_and_protocol_make_the_identity(monkeypatch):
    before = {name: retrospective.identity_of(name) for name in retrospective.COMPUTED}
    config = retrospective.shipped(retrospective.CONFIG)
    for fidelity in config["fidelities"]:
        if fidelity["name"] == "md":
            fidelity["params"]["time_ps"] += 1.0
    monkeypatch.setattr(retrospective, "shipped", lambda name: config)
    assert retrospective.identity_of("md") != before["md"]
    assert retrospective.identity_of("bvse") == before["bvse"]


def test_an_oracles_version_is_part_of_its_identity(monkeypatch):
    before = retrospective.identity_of("bvse")
    oracle = retrospective.oracle_of(retrospective.source("bvse"), Path())
    monkeypatch.setattr(type(oracle), "version", "another")
    assert retrospective.identity_of("bvse") != before


def test_a_campaign_is_kept_by_its_config_and_tables(tmp_path, monkeypatch):
    tables, table = tmp_path / "tables", tmp_path / "answers.csv"
    tables.mkdir()
    (tables / "pool.csv").write_text("one")
    table.write_text("one")

    def name(method="joint", seed=0):
        return retrospective.campaign_file(method, seed, tables, table, tmp_path).name

    names = [name(), name(seed=1), name("random")]
    for changed in (tables / "pool.csv", table):
        changed.write_text("two")
        names.append(name())
    config = retrospective.shipped(retrospective.CONFIG)
    config["budget"]["total"] += 1.0
    monkeypatch.setattr(retrospective, "shipped", lambda _: dict(config))
    names.append(name())
    assert len(set(names)) == len(names)
    elsewhere = tables.rename(tmp_path / "elsewhere")
    assert retrospective.campaign_file("joint", 0, elsewhere, table, tmp_path).name == names[-1]


def test_what_was_measured_counts_once_and_from_its_cost_on():
    lab = [[1.0, "x"], [2.0, "y"], [3.0, "x"]]
    assert retrospective.found_by(lab, {"x", "z"}, [0.5, 1.0, 2.5, 3.0]) == [0, 1, 1, 1]


def test_the_interval_of_a_rank_correlation():
    found = retrospective.rank_correlation([(float(k), float(k % 5)) for k in range(20)])
    assert found["low"] < found["spearman"] < found["high"]
    assert found["n"] == 20


@pytest.mark.parametrize(
    ("rho", "n", "low", "high"), [(0.5, 30, 0.15, 0.74), (0.5, 3, -1, 1), (1.0, 9, 1, 1)]
)
def test_intervals_of_rank_correlations(rho, n, low, high):
    """(0.5, 30): tanh(atanh(0.5) ± 1.96 sqrt(1.125 / 27))."""
    assert retrospective._interval(rho, n) == pytest.approx((low, high), abs=0.02)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ([4.25], "4.2"),
        ([3.0, 1.0, 2.0, 5.0, 4.0], "3.0 (2.0 to 4.0)"),
        ([4.0, 1.0, 3.0, 2.0], "2.5 (1.8 to 3.2)"),
        ([3.0, None, 2.0], "3.0 (2.5 to never)"),
        ([3.0, None, 2.0, None], "never (2.8 to never)"),
        ([None, None, None, 2.0], "never"),
        ([None, None], "never"),
    ],
)
def test_campaigns_that_never_came_so_far_count(costs, said):
    assert retrospective._spent(costs) == said


def test_methods_differ_by_their_sources_and_acquisition(tmp_path):
    def of(method):
        return retrospective.config_of(method, 3, tmp_path, tmp_path / "answers.csv")

    names = {
        method: [f["name"] for f in of(method)["fidelities"]] for method in ("joint", "without_md", "random")
    }
    assert names == {
        "joint": ["proxy", "bvse", "md", "lab"],
        "without_md": ["proxy", "bvse", "lab"],
        "random": ["lab"],
    }
    for method, kept in names.items():
        assert set(of(method)["initial_design"]["per_fidelity"]) == set(kept)
        parse_config(of(method))
    assert of("information")["fidelities"] == of("joint")["fidelities"]
    assert of("information")["acquisition"]["type"] == "mf_gibbon" != of("joint")["acquisition"]["type"]


def test_quantiles_are_numpy_s() -> None:
    values = list(np.random.default_rng(0).normal(size=11))
    quantiles = [retrospective._quantile(sorted(values), share) for share in (0.0, 0.13, 0.5, 1.0)]
    assert quantiles == pytest.approx(np.quantile(values, (0.0, 0.13, 0.5, 1.0)))
