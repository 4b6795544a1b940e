"""One config and seed give one campaign: again, beside another, and on PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from activelearning.campaign.tick import run
from activelearning.store.database import open_database

# Times, and where a campaign's files lie: the only columns in which two runs may differ.
HIDDEN = {
    *("created_at", "updated_at", "finished_at", "committed_at", "at", "timings", "seconds"),
    *("folder", "artifacts"),
}
TABLES = ("campaigns", "rounds", "evaluations", "measurements", "transitions", "ledger", "checkpoints")

REAL = {
    "sampler": {"type": "gflownet", "steps": 4, "warm_steps": 3, "batch_size": 8, "hidden": [8]},
    "acquisition": {"type": "mf_gibbon", "batch_size": 2, "pool_size": 16, "n_max_samples": 4},
    "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 4},
    "stopping": {"max_rounds": 2},
}
COUNTING = """
from oracles import Oracle


class Low(Oracle):
    n = 0

    def evaluate_one(self, candidate):
        type(self).n += 1
        return sum(candidate.values)


class High(Low):
    n = 0
"""


def tables(store: str) -> dict[str, list[str]]:
    """All rows of a store, times and places aside, in the order of their texts."""
    database = open_database(store)
    with database.read() as session:
        found = {}
        for name in TABLES:
            rows = session.execute(text(f'SELECT * FROM "{name}"')).mappings()
            kept = [{k: _plain(v) for k, v in row.items() if k not in HIDDEN} for row in rows]
            found[name] = sorted(repr(sorted(row.items())) for row in kept)
    database.close()
    return found


def _plain(value: Any) -> Any:
    """A value whatever the database gives for it: JSON comes as text from one, as objects from the other."""
    if isinstance(value, str) and value[:1] in "{[":
        value = json.loads(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return bytes(value) if isinstance(value, memoryview) else value


def test_the_same_config_and_seed_give_the_same_tables(bench: Any, tmp_path: Path) -> None:
    config = bench.config(**REAL)
    stores = [f"sqlite:///{tmp_path / f'{name}.db'}" for name in "ab"]
    for store in stores:
        with bench.open(config, store=store) as engine:
            run(engine)
    one, two = (tables(store) for store in stores)
    assert one == two
    assert len(one["rounds"]) == 3
    other = f"sqlite:///{tmp_path / 'c.db'}"
    with bench.open(bench.config(**REAL, seed=8), store=other) as engine:
        run(engine)
    assert tables(other)["measurements"] != one["measurements"]


def test_postgres_holds_the_same_tables_as_sqlite(bench: Any, postgres_url: str) -> None:
    config = bench.config(**REAL)
    for store in (bench.store, postgres_url):
        with bench.open(config, store=store) as engine:
            assert run(engine).action == "finished"
    assert tables(bench.store) == tables(postgres_url)


def _pair(bench: Any, **changes: Any) -> tuple[list[Any], list[Any], tuple[int, int]]:
    """Two campaigns of other names in one store, by turns; their rows and how often the oracles were asked."""
    bench.write("oracle.py", COUNTING)
    one = bench.config({"stopping.max_rounds": 1, **changes})
    two = bench.config({"stopping.max_rounds": 1, **changes}, name="second")
    with bench.open(one) as engine:
        run(engine)
        oracles = [type(source.oracle) for source in engine.parts.sources]
        asked = sum(oracle.n for oracle in oracles)
    with bench.open(two) as engine:
        run(engine)
    again = sum(oracle.n for oracle in oracles) - asked
    return bench.evaluations("small"), bench.evaluations("second"), (asked, again)


def test_campaigns_of_one_store_share_answers(bench: Any) -> None:
    first, second, (asked, again) = _pair(bench)
    assert asked == len(first)
    assert again == 0
    assert [row.content_key for row in first] == [row.content_key for row in second]
    assert not {row.key for row in first} & {row.key for row in second}
    for mine, theirs in zip(second, first, strict=True):
        assert mine.details == {"shared_from": theirs.key}
        # Where the charge is fixed an answer costs what it costs, so that a campaign is the same in any store.
        assert mine.cost_paid == theirs.cost_paid
    values = bench.rows("SELECT value, evaluation_key FROM measurements")
    by_key = {row["evaluation_key"]: row["value"] for row in values}
    assert [by_key[row.key] for row in first] == [by_key[row.key] for row in second]


def test_a_shared_answer_is_free_where_the_charge_is_measured(bench: Any) -> None:
    # What is free leaves more of the credit of `low`, so that under the safety rule the second would ask for more.
    _, second, _ = _pair(bench, **{"fidelities.0.charge": "measured", "safety.enabled": False})
    assert {row.cost_paid for row in second if row.fidelity == "low"} == {0.0}
    assert {row.cost_paid for row in second if row.fidelity == "high"} == {1.0}


def test_isolated_oracles_share_answers_too(bench: Any) -> None:
    _, second, _ = _pair(bench, **{"fidelities.0.timeout": 100})
    assert all("shared_from" in row.details for row in second if row.fidelity == "low")


def test_an_answer_in_another_unit_is_not_shared(bench: Any) -> None:
    bench.write("oracle.py", COUNTING)
    with bench.open(bench.config({"stopping.max_rounds": 1})) as engine:
        run(engine)
    with bench.open(
        bench.config({"stopping.max_rounds": 1, "objective.unit": "meV"}, name="second")
    ) as engine:
        run(engine)
    assert all("shared_from" not in row.details for row in bench.evaluations("second"))
    units = bench.rows(
        "SELECT DISTINCT campaign, unit FROM measurements JOIN evaluations ON key = evaluation_key ORDER BY 1"
    )
    assert units == [{"campaign": "second", "unit": "meV"}, {"campaign": "small", "unit": "eV"}]


def test_failures_are_not_shared(bench: Any) -> None:
    bench.write(
        "oracle.py",
        "from pathlib import Path\n"
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate):\n"
        f"        if not Path({str(bench.folder / 'mended')!r}).exists(): raise ValueError('broken')\n"
        "        return 1.0\n"
        "class High(Low): version = '2'\n",
    )
    with bench.open(bench.config({"stopping.max_rounds": 1})) as engine:
        run(engine)
    (bench.folder / "mended").touch()
    with bench.open(bench.config({"stopping.max_rounds": 1}, name="second")) as engine:
        run(engine)
    assert {row.state for row in bench.evaluations("small")} == {"failed"}
    assert {row.state for row in bench.evaluations("second")} == {"succeeded"}


@pytest.mark.parametrize("change", ["version", "parameter", "source"])
def test_another_question_is_asked_anew(bench: Any, change: str) -> None:
    source = COUNTING.replace(
        "    n = 0\n\n", "    n = 0\n    version = '1'\n    def __init__(self, a: int = 0): pass\n\n"
    )
    bench.write("oracle.py", source)
    with bench.open(bench.config({"stopping.max_rounds": 1})) as engine:
        run(engine)
    changes: dict[str, Any] = {"stopping.max_rounds": 1}
    if change == "parameter":
        changes["fidelities.0.params"] = {"a": 1}
    else:
        text_ = source.replace("'1'", "'2'") if change == "version" else source + "# another\n"
        bench.write("other.py", text_)
        changes["fidelities.0.oracle"] = "other.py:Low"
    with bench.open(bench.config(changes, name="second")) as engine:
        run(engine)
    low = [row for row in bench.evaluations("second") if row.fidelity == "low"]
    assert low
    assert all("shared_from" not in row.details for row in low)
