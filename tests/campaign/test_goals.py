"""Several objectives and constraints in a config, and what follows from them before anything is evaluated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activelearning.campaign.config import CampaignConfig, apply_override, parse_config
from activelearning.campaign.continuation import check_continuation
from activelearning.campaign.initial import design_counts, read_observations
from activelearning.campaign.parts import fidelities_of, goals_of
from activelearning.contracts import Constraint, Goals, Objective
from activelearning.errors import ConfigError
from activelearning.spaces.box import BoxSpace

OBJECTIVES = [{"property": "s", "unit": "S/cm"}, {"property": "e", "unit": "eV", "direction": "minimize"}]
GAP = [{"property": "gap", "unit": "eV", "at_least": 1.0}]
FIDELITIES = [
    {"name": "proxy", "oracle": "oracle.py:Low", "cost": 0.1, "property": "s"},
    {"name": "lab", "oracle": "oracle.py:High", "cost": 2.0, "property": "s", "target": True},
    {"name": "dft", "oracle": "oracle.py:Low", "cost": 1.0, "property": "e"},
    {"name": "gap", "oracle": "oracle.py:Low", "cost": 0.5, "property": "gap"},
]


def two(bench: Any, changes: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    value = bench.value(
        objectives=[dict(o) for o in OBJECTIVES],
        constraints=[dict(c) for c in GAP],
        fidelities=[dict(f) for f in FIDELITIES],
        acquisition={"batch_size": 2, "pool_size": 16},
        initial_design={},
        budget={"total": 30.0, "per_round": 6.0},
        **more,
    )
    del value["objective"]
    for dotted, new in (changes or {}).items():
        *parents, last = dotted.split(".")
        here: Any = value
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
        if new is None:
            del here[int(last) if isinstance(here, list) else last]
        else:
            here[int(last) if isinstance(here, list) else last] = new
    return value


def test_targets_are_found_by_property_and_a_lone_fidelity_says_nothing(bench: Any) -> None:
    config = parse_config(two(bench))
    assert [t.name for t in config.targets] == ["lab", "dft", "gap"]
    assert config.target.name == "lab"
    assert config.acquisition.type == "mf_hypervolume"
    assert [(f.is_target, f.property, f.unit) for f in fidelities_of(config)] == [
        (False, "s", "S/cm"),
        (True, "s", "S/cm"),
        (True, "e", "eV"),
        (True, "gap", "eV"),
    ]
    assert goals_of(config) == Goals(
        (Objective(1, True), Objective(2, False)), (Constraint(3, at_least=1.0),)
    )


def test_one_objective_with_constraints(bench: Any) -> None:
    value = bench.value(
        constraints=GAP,
        fidelities=[*bench.value()["fidelities"], FIDELITIES[3]],
        acquisition={"batch_size": 3},
    )
    config = parse_config(value)
    assert [t.name for t in config.targets] == ["high", "gap"]
    assert config.acquisition.type == "mf_hypervolume"
    assert config.acquisition.batch_size == 3
    assert goals_of(config).objectives == (Objective(1, True),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"property": "s"}}, "'objective' and 'objectives' exclude one another"),
        ({"objectives.1": None}, "it takes two or more; a single one is written under `objective`"),
        ({"objectives.1.property": "s"}, "objectives: the property 's' is there twice"),
        ({"objectives.0.refrence": 1}, r"'objectives\.0\.refrence'; did you mean 'reference'\?"),
        ({"constraints.0.property": "e"}, "'e' is an objective, too; give that objective a `reference`"),
        ({"constraints.0.at_least": None}, "on 'gap' needs `at_least`, `at_most` or both"),
        ({"constraints.0.at_most": 0.5}, "at least 1 and at most 0.5, which nothing can be"),
        ({"constraints": [GAP[0], GAP[0]]}, "constraints: the property 'gap' is there twice"),
        (
            {"stopping.target_value": 1.0},
            "stopping.target_value is a value of one objective, and there are several",
        ),
        ({"fidelities.0.target": True}, "proxy and lab all say `target: true` of 's'; exactly one may"),
        (
            {"fidelities.1.target": False},
            "none of proxy, lab says `target: true`; mark the one that answers 's'",
        ),
        ({"fidelities.3": None}, "constraints: no fidelity measures 'gap'; add one with `property: gap`"),
        ({"fidelities.2": None}, "objectives: no fidelity measures 'e'"),
        ({"fidelities.0.property": None}, "'proxy' does not say which `property` it measures"),
        (
            {"fidelities.0.property": "density", "fidelities.0.target": True},
            "'proxy' says `target: true` but measures 'density', which is neither an objective nor a constraint",
        ),
        (
            {"budget": {"total": 3.0}},
            "3 does not pay for one query of each target .*lab, dft, gap: 3.5 together",
        ),
        ({"budget.per_round": 1.5}, "does not pay for one query of the target fidelity .'lab' costs 2"),
    ],
)
def test_what_is_wrong_is_named(bench: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(two(bench, changes))


def test_a_constraint_on_the_one_objective_is_refused(bench: Any) -> None:
    with pytest.raises(ConfigError, match="'y' is the objective, and the best of it is looked for anyway"):
        bench.config(constraints=[{"property": "y", "at_least": 0.0}])


def test_the_default_round_pays_for_the_dearest_target(bench: Any) -> None:
    assert parse_config(two(bench, {"budget": {"total": 5.0}})).per_round == 2.0


@pytest.mark.parametrize("kind", ["mf_gibbon", "mf_mes", "target_ei"])
@pytest.mark.parametrize("what", ["several objectives", "constraints"])
def test_other_acquisitions_are_refused_and_leave_no_store(bench: Any, kind: str, what: str) -> None:
    value = two(bench, {"acquisition.type": kind})
    if what == "constraints":
        value["objective"] = value.pop("objectives")[0]
        del value["fidelities"][2]
    with pytest.raises(ConfigError, match=rf"acquisition.type '{kind}' .*{what}.*mf_hypervolume"):
        bench.open(parse_config(value))
    assert not (bench.folder / "store.db").exists()


def test_an_older_stored_config_of_one_objective_is_continued(bench: Any) -> None:
    config: CampaignConfig = bench.config()
    old = {k: v for k, v in config.to_json().items() if k not in ("objectives", "constraints")}
    check_continuation(old, config.to_json())
    with pytest.raises(ConfigError, match="another 'constraints'"):
        check_continuation(old, {**config.to_json(), "constraints": GAP})


def test_every_target_gets_its_first_evaluation(bench: Any) -> None:
    fidelities = fidelities_of(parse_config(two(bench)))
    # A fifth of 30 pays for one of each target and leaves 2.4 for the rest and for more.
    counts = design_counts(parse_config(two(bench)).initial_design, fidelities, 2, 30.0)
    assert min(counts[i] for i in (1, 2, 3)) >= 1
    assert sum(f.cost * counts[f.index] for f in fidelities) <= 6.0
    # A design's share that pays for none still begins with one of each, as long as the total does.
    tight = design_counts(parse_config(two(bench)).initial_design, fidelities, 2, 3.5)
    assert tight == {0: 0, 1: 1, 2: 1, 3: 1}


def test_known_measurements_find_their_target_by_property(bench: Any) -> None:
    config = parse_config(two(bench))
    path = bench.folder / "known.json"
    candidate = {"kind": "box", "values": [0.1, 0.2]}
    rows = [{"candidate": candidate, "value": 1.0, "property": p} for p in ("gap", "s", "e")]
    path.write_text(json.dumps(rows))
    space = BoxSpace([(0.0, 1.0), (0.0, 1.0)])
    known = read_observations(path, space, fidelities_of(config))
    assert [found.fidelity.name for found in known] == ["gap", "lab", "dft"]
    path.write_text(json.dumps([{"candidate": candidate, "value": 1.0}]))
    with pytest.raises(
        ConfigError, match=r"row 1: it names neither a fidelity nor one of the targets' properties"
    ):
        read_observations(path, space, fidelities_of(config))


def test_objectives_are_overridden_by_property(bench: Any) -> None:
    value = two(bench)
    apply_override(value, "objectives.e.reference", "0.2")
    apply_override(value, "constraints.gap.at_least", "0.5")
    config = parse_config(value)
    assert config.objectives is not None
    assert [o.reference for o in config.objectives] == [None, 0.2]
    assert goals_of(config).constraints == (Constraint(3, at_least=0.5),)
