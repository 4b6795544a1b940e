"""A campaign is continued with the same config, less what is free to change."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from activelearning.campaign.continuation import check_continuation, stored_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run
from activelearning.errors import ConfigError, InputError
from activelearning.store.database import open_database
from activelearning.store.models import Campaign, Checkpoint


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"budget": {"total": 60, "per_round": 3}},
        {"budget.total": 9.0},
        {"stopping": {"max_rounds": 3, "target_value": 1.0, "max_failed_rounds": 9}},
        {"fidelities.0.max_in_flight": 4},
        {"sampler.steps": 9},
        {"sampler.warm_steps": 9},
        {"surrogate.max_iterations": 9},
        {"store": "sqlite:///moved.db"},
        {"artifacts": "moved"},
    ],
    ids=str,
)
def test_what_may_change(bench: Any, changes: dict[str, Any]) -> None:
    check_continuation(bench.config().to_json(), bench.config(changes).to_json())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 8}, "seed"),
        ({"space.bounds": [[0, 1], [0, 2]]}, "space.bounds.1.1"),
        ({"space.bounds": [[0, 1]]}, "space.bounds"),
        ({"objective.direction": "minimize"}, "objective.direction"),
        ({"objective.unit": "meV"}, "objective.unit"),
        ({"fidelities.0.cost": 0.5}, "fidelities.0.cost"),
        ({"fidelities.0.oracle": "function"}, "fidelities.0.oracle"),
        ({"fidelities.0.charge": "measured"}, "fidelities.0.charge"),
        ({"fidelities.0.timeout": 3}, "fidelities.0.timeout"),
        ({"fidelities.0.params": {"max_in_flight": 3}}, "fidelities.0.params.max_in_flight"),
        ({"fidelities.0.name": "lower", "initial_design": {}}, "fidelities.0.name"),
        ({"sampler.type": "pool"}, "sampler.type"),
        ({"sampler.hidden": [8]}, "sampler.hidden"),
        ({"sampler.network": {"steps": 3}}, "sampler.network"),
        ({"surrogate.kernel": "rbf"}, "surrogate.kernel"),
        ({"acquisition.batch_size": 3}, "acquisition.batch_size"),
        ({"acquisition.steps": 3}, "acquisition.steps"),
        ({"acquisition.mode": "after"}, "acquisition.mode"),
        ({"initial_design": {"per_fidelity": {"low": 3, "high": 1}}}, "initial_design.per_fidelity.low"),
    ],
    ids=str,
)
def test_what_may_not_change_is_named(bench: Any, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_continuation(bench.config().to_json(), bench.config(changes).to_json())
    assert f"'{key}'" in str(caught.value)


def test_a_fidelity_more_is_refused(bench: Any) -> None:
    more = [*bench.value()["fidelities"], {"name": "dft", "oracle": "function", "cost": 1.0}]
    with pytest.raises(ConfigError, match="'fidelities'"):
        check_continuation(bench.config().to_json(), bench.config(fidelities=more).to_json())


def older(config: dict[str, Any], *dotted: str) -> dict[str, Any]:
    """A config as it was stored before some keys existed."""
    config = copy.deepcopy(config)
    for path in dotted:
        *parents, last = path.split(".")
        here: Any = config
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here[part]
        del here[last]
    return config


YOUNG = ("safety", "constraints", "acquisition.diversity", "fidelities.0.charge", "initial_design.share")


def test_keys_younger_than_the_stored_config_have_their_defaults(bench: Any) -> None:
    stored = older(bench.config().to_json(), *YOUNG)
    before = copy.deepcopy(stored)
    # Rounds from before there was a safety rule foretold nothing that it could go by.
    check_continuation(stored, bench.config({"safety.enabled": False}).to_json())
    assert stored == before


@pytest.mark.parametrize(
    ("key", "default", "value"),
    [
        ("safety.credit", 0.05, 0.2),
        ("safety.enabled", False, True),
        ("acquisition.diversity", "none", "distance"),
        ("fidelities.0.charge", "fixed", "measured"),
    ],
)
def test_a_younger_key_may_not_leave_its_default(bench: Any, key: str, default: Any, value: Any) -> None:
    stored = older(bench.config().to_json(), *YOUNG)
    with pytest.raises(ConfigError) as caught:
        check_continuation(stored, bench.config({"safety.enabled": False, key: value}).to_json())
    assert f"another '{key}': it was {default!r} and is now {value!r}" in " ".join(str(caught.value).split())


def test_a_stored_key_that_is_no_more_is_named(bench: Any) -> None:
    stored = {**bench.config().to_json(), "warp": 9}
    with pytest.raises(ConfigError, match="another 'warp': it was 9 and is now None"):
        check_continuation(stored, bench.config().to_json())


def test_a_campaign_stored_before_a_key_existed_goes_on(bench: Any) -> None:
    with bench.open(bench.config({"stopping.max_rounds": 1})) as engine:
        run(engine)
    database = open_database(bench.store)
    with database.write() as session:
        row = session.get_one(Campaign, "small")
        row.config = older(row.config, *YOUNG)
        session.execute(delete(Checkpoint).where(Checkpoint.component == "surrogate.alone"))
    database.close()
    with bench.open(bench.config({"stopping.max_rounds": 2, "safety.enabled": False})) as engine:
        run(engine)
        assert engine.round == 3
        assert "safety" in engine.repository.stored_config()


def test_a_campaign_goes_on_by_its_name_as_the_store_has_it(bench: Any) -> None:
    bench.open(bench.config({"stopping.max_rounds": 2})).close()
    database = open_database(bench.store)
    try:
        assert stored_config(database, "small") == (bench.config({"stopping.max_rounds": 2}), bench.folder)
        with database.write() as session:
            row = session.get_one(Campaign, "small")
            row.config = older(row.config, *YOUNG)
        config, folder = stored_config(database, "small")
        assert not config.safety.enabled  # it was run without
        with pytest.raises(InputError, match=r"'smal'.*small"):
            stored_config(database, "smal")
    finally:
        database.close()
    with Engine.open(config, folder=folder, store=bench.store) as engine:
        run(engine)
        assert engine.round == 3


def test_a_refused_change_leaves_the_store_as_it_was(bench: Any) -> None:
    config = bench.config({"stopping.max_rounds": 1})
    with bench.open(config) as engine:
        run(engine)
    before = bench.rows("SELECT * FROM campaigns"), bench.rows("SELECT * FROM evaluations")
    with pytest.raises(ConfigError, match="'seed'"):
        bench.open(bench.config(seed=8))
    assert (bench.rows("SELECT * FROM campaigns"), bench.rows("SELECT * FROM evaluations")) == before
    assert bench.rows("SELECT * FROM workers") == []


def test_a_finished_campaign_goes_on_with_more_budget(bench: Any) -> None:
    with bench.open(bench.config({"budget.total": 3.0})) as engine:
        run(engine)
        first = engine.round
        assert engine.balance().spent <= 3.0 + 1e-9
    with bench.open(bench.config({"budget.total": 6.0})) as engine:
        run(engine)
        assert engine.round > first
        assert 3.0 < engine.balance().spent <= 6.0 + 1e-9
    assert bench.rows("SELECT config FROM campaigns")[0]["config"].count('"total": 6.0') == 1


def test_a_default_sampler_can_be_spelled_out_with_other_steps(bench: Any) -> None:
    value = bench.value({"stopping.max_rounds": 1})
    del value["sampler"]
    from activelearning.campaign.config import parse_config

    bench.open(parse_config(value)).close()
    bench.open(parse_config({**value, "sampler": {"type": "gflownet", "steps": 3}})).close()
    with pytest.raises(ConfigError, match=r"'sampler\.type'"):
        bench.open(parse_config({**value, "sampler": {"type": "random"}}))


def test_a_moved_folder_is_found_again(bench: Any, tmp_path: Path) -> None:
    config = bench.config({"stopping.max_rounds": 1})
    bench.open(config).close()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("oracle.py", "store.db"):
        shutil.move(bench.folder / name, moved / name)
    bench.folder, bench.store = moved, f"sqlite:///{moved / 'store.db'}"
    with bench.open(config) as engine:
        run(engine)
    (row,) = bench.rows("SELECT folder, artifacts FROM campaigns")
    assert row == {"folder": str(moved), "artifacts": str(moved / "artifacts" / "small")}
    assert {row.state for row in bench.evaluations()} == {"succeeded"}
