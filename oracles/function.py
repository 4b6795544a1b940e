"""Analytic test functions with cheap, biased versions, for benchmarks and for trying a campaign out.

Every function is the one of the literature, sign included; the campaign's `objective.direction` says whether
it is minimised or maximised.

References:
    Branin: Dixon & Szegö, Towards Global Optimisation 2 (1978); biased levels: Wu, Toscano-Palmerin,
        Frazier & Wilson, Practical multi-fidelity Bayesian optimization for hyperparameter tuning,
        UAI 2019 (BoTorch's `AugmentedBranin`).
    Hartmann-6: Hartman, UCLA technical report (1973); biased levels as in Wu et al. (BoTorch's
        `AugmentedHartmann`).
    Currin: Currin, Mitchell, Morris & Ylvisaker, JASA 86 (1991), 953-963; low level: Xiong et al. (2013), below.
    Borehole: Harper & Gupta (1983); Morris, Mitchell & Ylvisaker, Technometrics 35 (1993); low level:
        Xiong, Qian & Wu, Technometrics 55 (2013), 37-46.
    Levels s = 0.5 and 0.75 of the augmented functions are those of Hernández-García et al., Multi-Fidelity
        Active Learning with GFlowNets (arXiv 2306.11715).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from activelearning.candidate import BoxCandidate
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from oracles.base import Oracle

Array = npt.NDArray[np.float64]
Level = Literal["target", "high", "medium", "low"]


def branin(x: Array, s: float = 1.0) -> Array:
    """Branin at fidelity s, from `n x 2` points of [-5, 10] x [0, 15] to `n` values.

    s = 1 is the function itself; below, the quadratic coefficient is lowered by 0.1 (1 - s) (Wu et al. 2019).
    """
    x1, x2 = x[:, 0], x[:, 1]
    b = 5.1 / (4.0 * math.pi**2) - 0.1 * (1.0 - s)
    valley = x2 - b * x1**2 + 5.0 / math.pi * x1 - 6.0
    return valley**2 + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * np.cos(x1) + 10.0


_HARTMANN_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_A = np.array(
    [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312.0, 1696.0, 5569.0, 124.0, 8283.0, 5886.0],
        [2329.0, 4135.0, 8307.0, 3736.0, 1004.0, 9991.0],
        [2348.0, 1451.0, 3522.0, 2883.0, 3047.0, 6650.0],
        [4047.0, 8828.0, 8732.0, 5743.0, 1091.0, 381.0],
    ]
)


def hartmann6(x: Array, s: float = 1.0) -> Array:
    """Hartmann-6 at fidelity s, from `n x 6` points of the unit cube to `n` values.

    s = 1 is the function itself; below, the first well's weight is lowered by 0.1 (1 - s) (Wu et al. 2019).
    """
    alpha = _HARTMANN_ALPHA - np.array([0.1 * (1.0 - s), 0.0, 0.0, 0.0])
    distance = (_HARTMANN_A * (x[:, None, :] - _HARTMANN_P) ** 2).sum(axis=2)
    return -(alpha * np.exp(-distance)).sum(axis=1)


def borehole(x: Array, numerator: float = 2.0 * math.pi, offset: float = 1.0) -> Array:
    """Water flow through a borehole in m³/yr, from `n x 8` points to `n` values.

    Columns: borehole radius r_w (m), radius of influence r (m), transmissivity T_u of the upper aquifer
    (m²/yr), its potentiometric head H_u (m), T_l and H_l of the lower aquifer, length L (m), hydraulic
    conductivity K_w (m/yr).
    `numerator` = 5 and `offset` = 1.5 give the low-accuracy version of Xiong et al. (2013).
    """
    r_w, r, t_u, h_u, t_l, h_l, length, k_w = x.T
    log_ratio = np.log(r / r_w)
    resistance = log_ratio * (offset + t_u / t_l) + 2.0 * length * t_u / (r_w**2 * k_w)
    return numerator * t_u * (h_u - h_l) / resistance


def currin(x: Array) -> Array:
    """Currin's exponential function, from `n x 2` points of the unit square to `n` values; 1 at x2 = 0 is its limit."""
    x1, x2 = x[:, 0], x[:, 1]
    with np.errstate(divide="ignore"):
        rise = 1.0 - np.exp(-0.5 / x2)
    above = 2300.0 * x1**3 + 1900.0 * x1**2 + 2092.0 * x1 + 60.0
    below = 100.0 * x1**3 + 500.0 * x1**2 + 4.0 * x1 + 20.0
    return rise * above / below


def currin_low(x: Array) -> Array:
    """The low-accuracy version of Xiong, Qian & Wu (2013): a mean over four points at a distance of 0.05."""
    shifts = ((0.05, 0.05), (0.05, -0.05), (-0.05, 0.05), (-0.05, -0.05))
    moved = [x + np.array(shift) for shift in shifts]
    near = [currin(np.column_stack([y[:, 0], np.maximum(y[:, 1], 0.0)])) for y in moved]
    return np.mean(near, axis=0, dtype=np.float64)


@dataclass(frozen=True)
class AnalyticFunction:
    """A test function with its fidelity levels.

    Attributes:
        name: Name in a config.
        variables: Names of the coordinates, in order.
        bounds: Usual domain of each coordinate, in its own unit.
        direction: How the literature optimises it.
        optimum: Best value of the highest level over `bounds`.
        optimizers: Points that attain it.
        levels: Function of each level, from `n x d` to `n`.
    """

    name: str
    variables: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]
    direction: Literal["minimize", "maximize"]
    optimum: float
    optimizers: tuple[tuple[float, ...], ...]
    levels: Mapping[str, Callable[[Array], Array]]

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.bounds)


FUNCTIONS: Mapping[str, AnalyticFunction] = {
    function.name: function
    for function in (
        AnalyticFunction(
            name="branin",
            variables=("x1", "x2"),
            bounds=((-5.0, 10.0), (0.0, 15.0)),
            direction="minimize",
            optimum=10.0 / (8.0 * math.pi),
            optimizers=((-math.pi, 12.275), (math.pi, 2.275), (3.0 * math.pi, 2.475)),
            levels={"high": branin, "medium": partial(branin, s=0.75), "low": partial(branin, s=0.5)},
        ),
        AnalyticFunction(
            name="hartmann6",
            variables=("x1", "x2", "x3", "x4", "x5", "x6"),
            bounds=((0.0, 1.0),) * 6,
            direction="minimize",
            optimum=-3.322368011415514,
            optimizers=((0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573),),
            levels={
                "high": hartmann6,
                "medium": partial(hartmann6, s=0.75),
                "low": partial(hartmann6, s=0.5),
            },
        ),
        AnalyticFunction(
            name="borehole",
            variables=("r_w", "r", "T_u", "H_u", "T_l", "H_l", "L", "K_w"),
            bounds=(
                (0.05, 0.15),
                (100.0, 50_000.0),
                (63_070.0, 115_600.0),
                (990.0, 1_110.0),
                (63.1, 116.0),
                (700.0, 820.0),
                (1_120.0, 1_680.0),
                (9_855.0, 12_045.0),
            ),
            direction="maximize",
            # The flow is monotonic in every variable, so the maximum is a corner of the domain.
            optimum=309.5755876604792,
            optimizers=((0.15, 100.0, 115_600.0, 1_110.0, 116.0, 700.0, 1_120.0, 12_045.0),),
            levels={"high": borehole, "low": partial(borehole, numerator=5.0, offset=1.5)},
        ),
        AnalyticFunction(
            name="currin",
            variables=("x1", "x2"),
            bounds=((0.0, 1.0), (0.0, 1.0)),
            direction="maximize",
            # At x2 = 0, at the root of the rational function's derivative.
            optimum=13.798722044728434,
            optimizers=((0.21666666666666667, 0.0),),
            levels={"high": currin, "low": currin_low},
        ),
    )
}


class FunctionOracle(Oracle):
    """An analytic function of box candidates, whose values are in the function's own units.

    The formulas hold outside the usual domain too; a point at which one has no finite value fails by itself.

    Args:
        function: Which function.
        fidelity: Which level; `target` and `high` are the function itself, `medium` and `low` its biased
            versions (Borehole has no `medium`).
        reversed: Answer with the negative, a source that correlates with the straight one by -1.
        noise_std: Standard deviation of Gaussian noise, in the function's unit, seeded from the evaluation.
        unit_cube: Coordinates are those of the unit cube, stretched over the function's usual domain, so that
            functions of different domains can be asked about one space.

    Raises:
        ConfigError: an unknown function or level, or a negative `noise_std`.
    """

    def __init__(
        self,
        function: Literal["branin", "hartmann6", "borehole", "currin"],
        fidelity: Level = "target",
        reversed: bool = False,
        noise_std: float = 0.0,
        unit_cube: bool = False,
    ) -> None:
        if function not in FUNCTIONS:
            raise ConfigError(
                f"The oracle 'function' has no function {function!r}: params.function must be one of "
                f"{', '.join(FUNCTIONS)}."
            )
        self.function = FUNCTIONS[function]
        self.level = "high" if fidelity == "target" else fidelity
        if self.level not in self.function.levels:
            raise ConfigError(
                f"The function {function!r} has no fidelity {fidelity!r}: params.fidelity must be one of "
                f"target, {', '.join(self.function.levels)}."
            )
        if not (math.isfinite(noise_std) and noise_std >= 0.0):
            raise ConfigError(
                f"params.noise_std of the oracle 'function' must be 0 or more, not {noise_std}."
            )
        self.reversed = reversed
        self.noise_std = float(noise_std)
        self.unit_cube = unit_cube

    def content(self) -> Mapping[str, object]:
        """The parameters, defaults filled in: equal sources share answers however they are written."""
        return {
            "function": self.function.name,
            "fidelity": self.level,
            "reversed": self.reversed,
            "noise_std": self.noise_std,
            # Only where it is set: answers kept from before there was such a choice stay valid.
            **({"unit_cube": True} if self.unit_cube else {}),
        }

    def evaluate(self, candidates: Sequence[BoxCandidate]) -> Sequence[Measurement]:
        """Answer for every candidate; one of another dimension or without a finite value fails alone."""
        usable = [i for i, candidate in enumerate(candidates) if self._problem(candidate) is None]
        x = np.array([candidates[i].values for i in usable], dtype=np.float64)
        x = x.reshape(len(usable), self.function.dimension)
        if self.unit_cube:
            low, high = np.array(self.function.bounds).T
            x = low + (high - low) * x
        with np.errstate(all="ignore"):  # what is not finite is reported below
            values = self.function.levels[self.level](x)
        if self.reversed:
            values = -values
        found = dict(zip(usable, values.tolist(), strict=True))
        return [self._measurement(candidate, found.get(i)) for i, candidate in enumerate(candidates)]

    def _problem(self, candidate: object) -> str | None:
        d = self.function.dimension
        if not isinstance(candidate, BoxCandidate):
            return f"the oracle 'function' needs a space of type box, not a {type(candidate).__name__}"
        if len(candidate.values) != d:
            return (
                f"the function {self.function.name!r} has {d} variables "
                f"({', '.join(self.function.variables)}), but space.bounds has {len(candidate.values)}"
            )
        return None

    def _measurement(self, candidate: BoxCandidate, value: float | None) -> Measurement:
        if value is None:
            return Measurement.failed(self._problem(candidate) or "no value")
        if not math.isfinite(value):
            return Measurement.failed(
                f"the function {self.function.name!r} has no finite value at {candidate.values}: "
                f"space.bounds should lie within {[list(pair) for pair in self.function.bounds]}"
            )
        if self.noise_std == 0.0:
            return Measurement.of(self.context.property, value)
        noise = np.random.default_rng(self.seed(candidate)).normal(0.0, self.noise_std)
        return Measurement.of(self.context.property, value + float(noise), std=self.noise_std)
