"""Environments of the GFlowNet: crystal, box, grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from activelearning.contracts import Space
from activelearning.errors import ConfigError
from samplers.gflownet.environments.base import Environment, InvertibleEnvironment
from samplers.gflownet.environments.box import BoxEnvironment
from samplers.gflownet.environments.grid import GridEnvironment

__all__ = [
    "ENVIRONMENTS",
    "BoxEnvironment",
    "Environment",
    "GridEnvironment",
    "InvertibleEnvironment",
    "make_environment",
]


def _crystal(space: Any, n_fidelities: int | None) -> Environment:
    # Its symmetry tables take time and memory that a box campaign should not pay for.
    from samplers.gflownet.environments.crystal import CrystalEnvironment

    return CrystalEnvironment(space, n_fidelities)


ENVIRONMENTS: dict[str, Callable[[Any, int | None], Environment]] = {
    "box": BoxEnvironment,
    "crystal": _crystal,
}


def make_environment(space: Space, n_fidelities: int | None) -> Environment:
    """The environment that builds a space's candidates step by step.

    Args:
        space: A space whose `kind` is in `ENVIRONMENTS`.
        n_fidelities: Number of fidelities to choose from in the last step; None where the fidelity is not
            sampled.

    Raises:
        ConfigError: the space's kind has no environment, or there is no fidelity to choose from.
    """
    if n_fidelities is not None and n_fidelities < 1:
        raise ConfigError(f"A sampler of fidelities needs at least one, not {n_fidelities}.")
    kind = getattr(space, "kind", None)
    if kind not in ENVIRONMENTS:
        raise ConfigError(
            f"No GFlowNet environment builds candidates of a space of kind {kind!r} (known: "
            f"{', '.join(sorted(ENVIRONMENTS))}). Choose the sampler 'pool' for a list of candidates, or "
            f"register an environment in samplers.gflownet.environments.ENVIRONMENTS."
        )
    return ENVIRONMENTS[kind](space, n_fidelities)
