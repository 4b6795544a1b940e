"""The fitted ensemble of networks: one member a fold, a calibrated error, and the file they are kept in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from activelearning.crystals.descriptors import amounts_of
from activelearning.errors import InputError
from oracles.ml_proxy.fitting import LOG_ERROR
from oracles.ml_proxy.inputs import Array, network_inputs
from oracles.ml_proxy.materials import MaterialsTable
from oracles.ml_proxy.model import PROBES
from oracles.ml_proxy.network import Network, as_tensor

FAMILY = "network"
FORMAT = 1
# Rows go through the networks in blocks of one size, the last one filled up: a matrix product rounds by its shape, and
# an answer must not depend on what else was asked.
CHUNK = 128


@dataclass(frozen=True)
class Spread:
    """Turns what a member says of a crystal into a predictive error, by errors of cross-validation.

    The standard deviation is sqrt(floor² + (slope · e)²) · sqrt(1 + (reach · d)²), e being the error the network states
    and d the distance from its training rows. It is scaled so that 90 % of the errors are within 1.645 of it.

    Attributes:
        floor: Error where the network states none, in the property's unit.
        slope: Factor on the error stated.
        reach: Growth with the distance.
        half: Half of the errors are within so many standard deviations (0.674 were they Gaussian).
    """

    floor: float
    slope: float
    reach: float
    half: float

    def std(self, error: Array, distance: Array) -> Array:
        """Standard deviations from errors stated and distances of the same shape."""
        return np.sqrt((self.floor**2 + (self.slope * error) ** 2) * (1.0 + (self.reach * distance) ** 2))


@dataclass(frozen=True)
class Member:
    """A network with the mean and scale of the values it was trained on, and its error, calibrated without its fold."""

    network: Network
    mean: float
    scale: float
    spread: Spread

    def outputs(self, inputs: Array, groups: npt.NDArray[np.int64]) -> Array:
        """Means, errors stated and distances from the training rows, `3 x n`, in the property's unit."""
        with torch.no_grad():
            out, distance = self.network.outputs_and_distance(as_tensor(inputs), torch.from_numpy(groups))
        values = out.double().numpy()
        error = self.scale * np.exp(np.clip(values[:, 1], *LOG_ERROR))
        return np.stack([self.mean + self.scale * values[:, 0], error, distance.double().numpy()])


def fold_of(formulas: npt.NDArray[np.uint64], n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold of each composition, `n`: by its marks alone, so that a composition is in one fold in whatever table."""
    mixed = formulas ^ np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed >> np.uint64(33)) % np.uint64(n_folds)).astype(np.int64)


def member_outputs(
    members: Sequence[Member], amounts: Array, groups: npt.NDArray[np.int64], lattices: Array
) -> Array:
    """Means, errors stated and distances of every member, `k x 3 x n`; a row's do not depend on the other rows."""
    n = len(amounts)
    found = np.empty((len(members), 3, n))
    for start in range(0, n, CHUNK):
        rows = np.minimum(np.arange(start, start + CHUNK), n - 1)
        inputs = network_inputs(amounts[rows], groups[rows], lattices[rows])
        for k, member in enumerate(members):
            found[k, :, start : start + CHUNK] = member.outputs(inputs, groups[rows])[:, : n - start]
    return found


@dataclass(frozen=True)
class EnsembleModel:
    """A model of one property of crystals.

    Attributes:
        name: Name of the property.
        unit: Its unit.
        members: One network a fold, trained without that fold.
        lower: Least value the property can have, or None.
        elements: Elements the training data held.
        seed: Of the folds.
        seen: Marks of the compositions trained on, the lower 32 of their 64 bits, ascending.
        info: How it was made (JSON).
    """

    name: str
    unit: str
    members: tuple[Member, ...]
    lower: float | None
    elements: tuple[str, ...]
    seed: int
    seen: npt.NDArray[np.uint32]
    info: Mapping[str, Any]

    def predict(
        self,
        compositions: Sequence[Mapping[str, float]],
        space_groups: Sequence[int],
        lattices: npt.ArrayLike,
    ) -> tuple[Array, Array]:
        """Mean and predictive standard deviation, each `n`, in the property's unit.

        Args:
            compositions: Atoms of each element in the conventional cell.
            space_groups: International numbers.
            lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`.

        Raises:
            ValueError: a composition is empty or names an element beyond Lr.
        """
        return self.predict_arrays(
            amounts_of(compositions),
            np.asarray(space_groups, dtype=np.int64),
            np.asarray(lattices, np.float64),
        )

    def predict_arrays(
        self, amounts: Array, space_groups: npt.NDArray[np.int64], lattices: Array
    ) -> tuple[Array, Array]:
        """As `predict`, from arrays: the fast way for rewards.

        The mean is that of the members; the variance is that of their mixture, the mean of their variances plus the
        variance of their means, so that it grows where the members disagree.

        Args:
            amounts: Atoms of each element (H to Lr) in the conventional cell, `n x 103`.
            space_groups: International numbers, `n`.
            lattices: As in `predict`, `n x 6`.
        """
        means, errors, distances = member_outputs(
            self.members, amounts, space_groups, lattices.reshape(-1, 6)
        ).swapaxes(0, 1)
        stds = np.stack([m.spread.std(e, d) for m, e, d in zip(self.members, errors, distances, strict=True)])
        variance = (stds**2).mean(axis=0) + means.var(axis=0)
        return self._within(means.mean(axis=0)), np.sqrt(variance)

    def held_out(self, table: MaterialsTable) -> tuple[Array, Array]:
        """Mean and standard deviation, each `n`, of rows by networks that have not seen their compositions.

        A row whose composition was trained on is judged by the member whose fold it was in; any other by all.
        """
        mean, std = self.predict_arrays(table.amounts, table.space_groups, table.lattices)
        is_seen = np.isin(_short(table.formulas), self.seen)
        folds = fold_of(table.formulas, len(self.members), self.seed)
        for k, member in enumerate(self.members):
            rows = np.flatnonzero(is_seen & (folds == k))
            if len(rows):
                means, errors, distances = member_outputs(
                    [member], table.amounts[rows], table.space_groups[rows], table.lattices[rows]
                )[0]
                mean[rows], std[rows] = self._within(means), member.spread.std(errors, distances)
        return mean, std

    def distance(self, table: MaterialsTable) -> Array:
        """Distance from the training rows, `n`: the mean over the members, about 1 for a typical training row."""
        found = member_outputs(self.members, table.amounts, table.space_groups, table.lattices)
        return np.asarray(found[:, 2].mean(axis=0))

    def _within(self, mean: Array) -> Array:
        return mean if self.lower is None else np.maximum(mean, self.lower)

    def probe(self) -> list[float]:
        """Predictions for `PROBES`."""
        compositions, groups, lattices = zip(*PROBES, strict=True)
        return [float(value) for value in self.predict(compositions, groups, lattices)[0]]

    def save(self, path: Path) -> None:
        """Write an npz file; equal models give equal bytes."""
        header = {
            "family": FAMILY,
            "format": FORMAT,
            "property": self.name,
            "unit": self.unit,
            "members": [{"mean": m.mean, "scale": m.scale, "spread": asdict(m.spread)} for m in self.members],
            "lower": self.lower,
            "elements": list(self.elements),
            "seed": self.seed,
            "info": dict(self.info),
            "probe": self.probe(),
        }
        text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {"seen": self.seen}
        for k, member in enumerate(self.members):
            arrays |= {f"{k}/{name}": value for name, value in member.network.arrays().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, header=text, **arrays)

    @classmethod
    def load(cls, path: Path) -> EnsembleModel:
        """Read a model back.

        Raises:
            InputError: the file is missing, is no such model, or this version computes other inputs than the one it
                was trained with.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays["header"].tobytes())
            if (header.get("family"), header["format"]) != (FAMILY, FORMAT):
                raise ValueError(
                    f"it holds a {header.get('family', 'forest')} of format {header['format']}, not a network of "
                    f"format {FORMAT}"
                )
            model = cls(
                name=header["property"],
                unit=header["unit"],
                members=tuple(
                    Member(
                        Network.from_arrays(_of_member(arrays, k)),
                        m["mean"],
                        m["scale"],
                        Spread(**m["spread"]),
                    )
                    for k, m in enumerate(header["members"])
                ),
                lower=header["lower"],
                elements=tuple(header["elements"]),
                seed=header["seed"],
                seen=arrays["seen"],
                info=header["info"],
            )
            if not np.allclose(model.probe(), header["probe"], rtol=0.0, atol=1e-3):
                raise ValueError("this version computes other inputs than the one it was trained with")
            return model
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"The weights of the ML proxy can't be read from {path}: {error}. Weights are made by "
                f"'activelearning proxy train'."
            ) from error


def _of_member(arrays: Mapping[str, Any], k: int) -> dict[str, Any]:
    prefix = f"{k}/"
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _short(formulas: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    return (formulas & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def marks_seen(formulas: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """What a model keeps of the compositions it was trained on; about one in 200,000 others is taken for a seen one."""
    return np.unique(_short(formulas))
