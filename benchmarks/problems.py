"""Benchmark problems: analytic functions with cheap, biased versions, at the costs of the literature.

Costs, the function itself costing 1:
    Branin (0.01, 0.1) and Hartmann-6 (0.125, 0.25): Hernández-García et al., Multi-Fidelity Active Learning with
        GFlowNets (arXiv 2306.11715), whose levels s = 0.5 and 0.75 these are.
    Currin and Borehole (0.1): Kandasamy, Dasarathy, Oliva, Schneider & Póczos, Gaussian Process Bandit Optimisation
        with Multi-fidelity Evaluations, NeurIPS 2016, with the low levels of Xiong, Qian & Wu, Technometrics 55 (2013).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from oracles.function import FUNCTIONS

COSTS: Mapping[str, Mapping[str, float]] = {
    "branin": {"low": 0.01, "medium": 0.1, "high": 1.0},
    "hartmann6": {"low": 0.125, "medium": 0.25, "high": 1.0},
    "borehole": {"low": 0.1, "high": 1.0},
    "currin": {"low": 0.1, "high": 1.0},
}


def problem(
    name: str, *, levels: Collection[str] | None = None, reversed_levels: Collection[str] = ()
) -> dict[str, Any]:
    """A benchmark problem as plain values.

    Args:
        name: `branin`, `hartmann6`, `borehole` or `currin`.
        levels: Fidelities to offer, `high` (the target) always among them; all by default.
        reversed_levels: Those of them that answer with the negative (correlation -1).

    Returns:
        `name, bounds, direction, optimum, fidelities`; the last as in a campaign's config.

    Raises:
        KeyError: there is no such problem.
        ValueError: a level is unknown, or the target is left out or reversed.
    """
    costs, function = COSTS[name], FUNCTIONS[name]
    offered = list(costs) if levels is None else [level for level in costs if level in levels]
    unknown = {*(levels or ()), *reversed_levels} - set(costs)
    if unknown or "high" not in offered or "high" in reversed_levels:
        raise ValueError(
            f"{name} has the levels {', '.join(costs)}; 'high' is the target, always offered and never reversed"
        )
    return {
        "name": name,
        "bounds": [list(pair) for pair in function.bounds],
        "direction": function.direction,
        "optimum": function.optimum,
        "fidelities": [
            {
                "name": level,
                "oracle": "function",
                "cost": costs[level],
                **({"target": True} if level == "high" else {}),
                "params": {
                    "function": name,
                    "fidelity": level,
                    **({"reversed": True} if level in reversed_levels else {}),
                },
            }
            for level in offered
        ],
    }


def campaign(of: Mapping[str, Any], *, total: float, seed: int = 0, **sections: Any) -> dict[str, Any]:
    """The config of a campaign on a problem.

    Args:
        of: A problem, from `problem`.
        total: Budget, in target evaluations.
        seed: Seed of the campaign.
        sections: Further sections of the config, as in YAML.
    """
    return {
        "name": f"{of['name']}-{seed}",
        "seed": seed,
        "space": {"type": "box", "bounds": of["bounds"]},
        "objective": {"property": of["name"], "direction": of["direction"]},
        "fidelities": of["fidelities"],
        "budget": {"total": total},
        **sections,
    }
