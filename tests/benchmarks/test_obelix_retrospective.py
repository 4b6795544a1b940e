"""What the retrospective campaign keeps of its sources' answers, and how it counts."""

import obelix_retrospective as retrospective
import pytest


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


def test_what_was_measured_counts_once_and_from_its_cost_on():
    lab = [[1.0, "x"], [2.0, "y"], [3.0, "x"]]
    assert retrospective.found_by(lab, {"x", "z"}, [0.5, 1.0, 2.5, 3.0]) == [0, 1, 1, 1]


def test_the_interval_of_a_rank_correlation():
    found = retrospective.rank_correlation([(float(k), float(k % 5)) for k in range(20)])
    assert found["low"] < found["spearman"] < found["high"]
    assert found["n"] == 20
