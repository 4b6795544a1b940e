"""The oracles of a shipped campaign, each by itself, as the campaign has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from activelearning.campaign.answering import ask
from activelearning.campaign.sections import construct
from activelearning.campaign.shipped import find_config
from activelearning.candidate import Candidate
from activelearning.contracts import OracleContext
from activelearning.contracts.oracle import OracleLike
from activelearning.measurement import Measurement


def shipped(name: str) -> dict[str, Any]:
    """A config as it stands; each fidelity has its property and unit, the objective's where it names none."""
    value: dict[str, Any] = yaml.safe_load(find_config(name).read_text(encoding="utf-8"))
    objective = {key: value["objective"].get(key) for key in ("property", "unit")}
    value["fidelities"] = [
        f if "property" in f else f | {key: told for key, told in objective.items() if told is not None}
        for f in value["fidelities"]
    ]
    return value


def oracle_of(fidelity: Mapping[str, Any], folder: Path) -> OracleLike:
    """The oracle of a fidelity's section, bound and checked; its runs are kept in a subfolder of its name."""
    name = fidelity["name"]
    oracle: OracleLike = construct(
        "oracles", fidelity["oracle"], fidelity.get("params", {}), key=name, folder=None
    )
    oracle.bind(
        OracleContext(
            "benchmark", name, fidelity["property"], fidelity.get("unit"), fidelity["cost"], "", folder / name
        )
    )
    oracle.check()
    return oracle


def identity_of(oracle: OracleLike) -> dict[str, Any]:
    """What an oracle's answers depend on besides the candidate, as plain values: version, protocol and weights."""
    return {"version": oracle.version, "content": oracle.content()}


def answer_of(oracle: OracleLike, fidelity: Mapping[str, Any], candidate: Candidate) -> Measurement:
    """What an oracle says of one candidate, held to its contract as in a campaign."""
    [found] = ask(
        oracle, fidelity["name"], fidelity["property"], fidelity.get("unit"), [candidate], [candidate.key]
    )
    return found
