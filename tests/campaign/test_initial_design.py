"""Round 0: default and stated counts, and known measurements from a file."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearning.campaign.config import InitialDesignConfig
from activelearning.campaign.initial import design_counts
from activelearning.campaign.tick import run, tick
from activelearning.errors import ConfigError
from activelearning.fidelity import Fidelity


def _fidelities(*costs: float, target: int = -1) -> list[Fidelity]:
    target %= len(costs)
    return [Fidelity(f"f{i}", i, "y", None, cost, i == target) for i, cost in enumerate(costs)]


def test_default_counts() -> None:
    # A fifth of 100: one of each costs 11.1, and each fidelity gets a third of the 8.9 left.
    assert design_counts(InitialDesignConfig(), _fidelities(0.1, 1.0, 10.0), 4, 100.0) == {0: 8, 1: 3, 2: 1}


def test_a_dear_target_is_asked_once_all_the_same() -> None:
    assert design_counts(InitialDesignConfig(), _fidelities(0.1, 60.0), 2, 100.0) == {0: 0, 1: 1}


@given(
    costs=st.lists(st.floats(0.01, 50.0), min_size=1, max_size=4),
    share=st.floats(0.01, 1.0),
    n_features=st.integers(1, 40),
)
def test_default_counts_keep_their_share(costs: list[float], share: float, n_features: int) -> None:
    fidelities = _fidelities(*costs)
    counts = design_counts(InitialDesignConfig(share=share), fidelities, n_features, 100.0)
    spent = sum(f.cost * counts[f.index] for f in fidelities)
    # The target is asked once even where its share does not pay for it.
    assert spent <= max(share * 100.0, fidelities[-1].cost) * (1 + 1e-9)
    assert counts[len(costs) - 1] >= 1
    assert all(0 <= n <= 20 for n in counts.values())


def test_stated_counts_are_taken_and_nested(bench: Any) -> None:
    with bench.open(bench.config({"initial_design": {"per_fidelity": {"low": 4, "high": 2}}})) as engine:
        tick(engine)
    rows = [row for row in bench.evaluations() if row.round == 0]
    low = [row.candidate_key for row in rows if row.fidelity == "low"]
    high = [row.candidate_key for row in rows if row.fidelity == "high"]
    assert (len(low), len(high)) == (4, 2)
    assert high == low[:2]


def test_an_oracle_s_foreseen_cost_cannot_break_the_budget(bench: Any) -> None:
    bench.write(
        "oracle.py",
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate): return 1.0\n"
        "    def cost(self, candidate): return 2.5\n"
        "class High(Oracle):\n"
        "    def evaluate_one(self, candidate): return 1.0\n",
    )
    config = bench.config({"fidelities.0.charge": "measured"})
    with bench.open(config) as engine:
        run(engine)
        assert engine.balance().spent <= config.budget.total
    assert [row.cost_reserved for row in bench.evaluations()[:3]] == [2.5, 2.5, 1.0]


@pytest.mark.parametrize("word", ["float('nan')", "-1.0", "0.0", "'dear'", "1 / 0"])
def test_a_foreseen_cost_that_is_none_ends_the_run_with_its_name(bench: Any, word: str) -> None:
    bench.write(
        "oracle.py",
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate): return 1.0\n"
        f"    def cost(self, candidate): return {word}\n"
        "High = type('High', (Low,), {})\n",
    )
    from activelearning.errors import OracleError

    with (
        pytest.raises(OracleError, match=r"fidelities\.low: cost\(\) of the oracle 'oracle\.py:Low'"),
        bench.open(bench.config({"fidelities.0.charge": "measured"})) as engine,
    ):
        run(engine)
    assert bench.evaluations() == []
    assert bench.rows("SELECT * FROM leases") == []


def _row(x: float, value: Any, **more: Any) -> dict[str, Any]:
    return {"candidate": {"kind": "box", "values": [x, 0.5]}, "value": value, **more}


def _known(bench: Any, rows: list[dict[str, Any]], suffix: str) -> Any:
    if suffix == "json":
        bench.write("known.json", json.dumps(rows))
    else:
        frame = pd.DataFrame(rows)
        frame["candidate"] = [json.dumps(row["candidate"]) for row in rows]
        frame.to_csv(bench.folder / "known.csv", index=False)
    return bench.config({"initial_design": {"observations": f"known.{suffix}"}})


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_known_measurements_cost_nothing(bench: Any, suffix: str) -> None:
    rows = [
        _row(0.1, -0.5, fidelity="low", std=0.25, unit="eV"),
        _row(0.1, -0.4, fidelity="high"),
        _row(0.2, -3.0, fidelity="high", censoring="upper"),
        _row(0.3, -0.3),
        _row(0.3, -0.31),  # measured twice: a replicate
        _row(0.4, None, fidelity="high", state="failed"),
    ]
    with bench.open(_known(bench, rows, suffix)) as engine:
        tick(engine)
        assert engine.balance().spent == 0
        assert engine.balance().reserved == 0
    found = bench.rows(
        "SELECT fidelity, value, std, censoring, unit, replicate, state, cost_paid, cost_reserved "
        "FROM evaluations JOIN measurements ON key = evaluation_key WHERE round = 0 ORDER BY position"
    )
    common = {"state": "succeeded", "cost_paid": 0, "cost_reserved": 0, "unit": "eV"}
    assert found == [
        {"fidelity": "low", "value": -0.5, "std": 0.25, "censoring": "none", "replicate": 0, **common},
        {"fidelity": "high", "value": -0.4, "std": None, "censoring": "none", "replicate": 0, **common},
        {"fidelity": "high", "value": -3.0, "std": None, "censoring": "upper", "replicate": 0, **common},
        {"fidelity": "high", "value": -0.3, "std": None, "censoring": "none", "replicate": 0, **common},
        {"fidelity": "high", "value": -0.31, "std": None, "censoring": "none", "replicate": 1, **common},
    ]
    assert bench.rows("SELECT count(*) AS n FROM ledger") == [{"n": 0}]
    assert {row["state"] for row in bench.rows("SELECT state FROM transitions")} == {"succeeded"}


def test_a_campaign_goes_on_from_known_measurements(bench: Any) -> None:
    with bench.open(_known(bench, [_row(0.1, 0.5), _row(0.7, 0.25)], "json")) as engine:
        run(engine)
        assert engine.round > 1
        assert 0 < engine.balance().spent <= 6.0
        assert all(row.key for row in engine.repository.evaluations())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([_row(0.1, 1.0), _row(2.0, 1.0)], "row 2: parameter 0 is 2"),
        ([_row(0.1, 1.0), _row(0.2, "high")], "row 2: "),
        ([_row(0.1, 1.0, fidelity="dft")], r"row 1: there is no fidelity 'dft' \(known: low, high\)"),
        ([_row(0.1, 1.0, unit="meV")], "row 1: its unit is 'meV', the fidelity's is 'eV'"),
        ([_row(0.1, 1.0, property="gap")], "row 1: it measures 'gap', the fidelity 'high' 'y'"),
        ([_row(0.1, 1.0, censoring="left")], "row 1: 'left' is not a valid Censoring"),
        ([_row(0.1, 1.0, std=-1.0)], "row 1: a standard error is finite and not negative"),
        ([{"candidate": {"kind": "box", "values": [0.1]}, "value": 1.0}], "row 1: a candidate has 1 values"),
        ([{"candidate": {"kind": "sphere"}, "value": 1.0}], "row 1: unknown kind of candidate: 'sphere'"),
        ([_row(0.1, None, state="failed")], "holds no row with a value"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_row_that_is_wrong_is_named(
    bench: Any, rows: list[dict[str, Any]], message: str, suffix: str
) -> None:
    config = _known(bench, rows, suffix)
    with pytest.raises(ConfigError, match=rf"observations \(.*known\.{suffix}\)") as caught:
        bench.open(config)
    assert caught.match(message)
    assert not (bench.folder / "store.db").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "can't be read"),
        ("[]", "holds no rows"),
        ("[3]", "row 1: it must be a mapping"),
        ("{", "can't be read"),
    ],
)
def test_a_file_that_is_wrong(bench: Any, text: str, message: str) -> None:
    bench.write("known.json", text)
    with pytest.raises(ConfigError, match=message):
        bench.open(bench.config({"initial_design": {"observations": "known.json"}}))


def test_a_column_that_is_missing_is_named(bench: Any) -> None:
    bench.write("known.json", json.dumps([{"candidate": {"kind": "box", "values": [0.1, 0.1]}}]))
    with pytest.raises(ConfigError, match="row 1 has no 'value'"):
        bench.open(bench.config({"initial_design": {"observations": "known.json"}}))


ARGYRODITE = {
    "kind": "crystal",
    "space_group": 216,
    "composition": {"Li": 24, "P": 4, "S": 20, "Cl": 4},
    "lattice": [9.859, 9.859, 9.859, 90.0, 90.0, 90.0],
}
FLUORIDE = {
    **ARGYRODITE,
    "space_group": 225,
    "composition": {"Li": 4, "F": 4},
    "lattice": [4.03] * 3 + [90.0] * 3,
}
CRYSTAL_ORACLES = """
from oracles import Oracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        return candidate.composition["Li"] / 10


class High(Low):
    pass
"""


def _crystals(bench: Any, **design: Any) -> Any:
    bench.write("oracle.py", CRYSTAL_ORACLES)
    rows = [
        {"candidate": ARGYRODITE, "value": 2.4, "fidelity": "low"},
        {"candidate": FLUORIDE, "value": 0.4, "fidelity": "low"},
    ]
    bench.write("known.json", json.dumps(rows))
    return bench.config(
        space={
            "type": "crystal",
            "elements": ["Li", "P", "S", "Cl"],
            "required_elements": ["Li"],
            "max_atoms": 12,
        },
        acquisition={"type": "target_ei", "batch_size": 2, "pool_size": 16},
        initial_design={"observations": "known.json", **design},
    )


def test_known_crystals_outside_the_space_are_learned_from_and_not_asked_again(bench: Any) -> None:
    counts = {"low": 2, "high": 1}
    with bench.open(_crystals(bench, outside="keep", per_fidelity=counts)) as engine:
        run(engine)
    rows = bench.evaluations()
    first = Counter((row.fidelity, row.cost_reserved > 0) for row in rows if row.round == 0)
    # The fluoride holds an element for which the space has no features.
    assert first == {("low", False): 1, ("low", True): 2, ("high", True): 1}
    outside = [row for row in rows if row.candidate["composition"] == ARGYRODITE["composition"]]
    assert [row.round for row in outside] == [0]
    assert max(row.round for row in rows) > 1


def test_known_crystals_outside_the_space_are_refused_by_default(bench: Any) -> None:
    with pytest.raises(ConfigError, match=r"row 1: .*216.*atoms"):
        bench.open(_crystals(bench))
    bench.write("known.json", json.dumps([{"candidate": FLUORIDE, "value": 0.4}]))
    config = bench.config(
        space={"type": "crystal", "elements": ["Li", "S"]},
        initial_design={"observations": "known.json", "outside": "keep"},
    )
    with pytest.raises(ConfigError, match="no row with a value of a crystal of the space's elements"):
        bench.open(config)
