"""A MACE whose nodes carry scalars, evaluated by compiled loops: the same function, several times as fast on a CPU.

The radial functions of a MACE are networks of the distance alone: they are tabulated once, as cubic splines whose error
is below that of single precision. The gradient is written out, so that nothing is recorded on the way. Loops are in
`oracles.potentials.kernels`; what is left are products of small matrices.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from torch import Tensor

from oracles.potentials import kernels
from oracles.potentials.contraction import ScalarContraction
from oracles.potentials.convolution import ScalarConvolution
from oracles.potentials.selection import ElementLinear

N_KNOTS = 512  # intervals of the radial functions: 0.01 Å where they reach to 5 Å
_NEAR_ZERO = 1e-6  # Å; at 0 itself the Bessel functions are written as 0/0


@dataclass(frozen=True)
class Evaluation:
    """What a potential says of one structure.

    Attributes:
        energy: eV.
        forces: eV/Å, `n x 3`.
        stress: eV/Å³, `3 x 3`.
        features: Of the nodes, those of all layers side by side, `n x layers C`.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    features: Tensor


@dataclass(frozen=True)
class _Layer:
    """Of C channels, for some elements.

    Attributes:
        radial: Splines, `knots x 2 x 3 x C`.
        up: Of the features that are sent, `C x C`.
        mixes: Of what is received, for each order of harmonics, `3 x C x C`.
        factors: Features in each term of the contraction, `terms x degree`.
        weights: Of the terms, `n_elements x terms x C`.
        product: Of the contraction's result, `C x C`.
        skip: From the features before to those after, `n_elements x C x C`.
    """

    radial: NDArray[Any]
    up: Tensor
    mixes: Tensor
    factors: NDArray[np.int64]
    weights: NDArray[Any]
    product: Tensor
    skip: Tensor


@dataclass(frozen=True)
class _Edges:
    first: NDArray[np.int64]
    sender: NDArray[np.int64]
    vectors: NDArray[np.float64]


def is_compilable(model: torch.nn.Module) -> bool:
    """Whether a model is one that `mace_model.build` made of layers with scalar nodes and harmonics to second order."""
    blocks: Any = getattr(model, "interactions", ())
    return len(blocks) > 1 and all(
        isinstance(block.conv_tp, ScalarConvolution)
        and block.conv_tp.max_ell == kernels.N_ORDERS - 1
        and isinstance(block.skip_tp, ElementLinear)
        for block in blocks
    )


class CompiledMace:
    """A function of atoms that gives energy, forces and stress of a model, as it is now.

    Args:
        model: One that `is_compilable`.
        dtype: Of the features; geometry, repulsion and sums of energies are in double precision.
    """

    def __init__(self, model: torch.nn.Module, dtype: torch.dtype) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript, hundreds
            network: Any = deepcopy(model).to("cpu", torch.float64).eval()
        self._dtype = dtype
        self._cutoff = float(network.r_max)
        self._numbers = network.atomic_numbers.numpy()
        self._step = self._cutoff / N_KNOTS
        with torch.no_grad():
            elements = torch.eye(len(self._numbers), dtype=torch.float64)
            self._embedding = network.node_embedding(elements).to(dtype)
            self._layers = [
                self._layer(network, block, product)
                for block, product in zip(network.interactions, network.products, strict=True)
            ]
            *linear, last = network.readouts
            self._linear_readouts = [_matrix(readout.linear).to(dtype).flatten() for readout in linear]
            self._hidden_readout = _matrix(last.linear_1).to(dtype)
            # e3nn scales an activation to a mean square of one.
            one = torch.ones(1, last.linear_1.irreps_out.dim, dtype=torch.float64)
            gate = float((last.non_linearity(one) / torch.nn.functional.silu(one))[0, 0])
            self._last_readout = (gate * _matrix(last.linear_2)).to(dtype).flatten()
            self._lone = network.atomic_energies_fn.atomic_energies[0].numpy()
            self._scale = float(network.scale_shift.scale)
            self._shift = float(network.scale_shift.shift)
            self._repulsion = _repulsion(network.pair_repulsion_fn, network.atomic_numbers)

    def _layer(self, network: Any, block: Any, product: Any) -> _Layer:
        channels, dtype = block.conv_tp.channels, self._dtype

        def radial(distances: Tensor) -> Tensor:
            embedded, _ = network.radial_embedding(distances.unsqueeze(1), None, None, None)
            values: Tensor = block.conv_tp_weights(embedded)
            return values

        distances = (torch.arange(N_KNOTS + 1, dtype=torch.float64) * self._step).clamp_min(_NEAR_ZERO)
        jvp: Any = torch.func.jvp
        values, slopes = jvp(radial, (distances,), (torch.full_like(distances, self._step),))
        splines = torch.stack([values, slopes], dim=1).view(N_KNOTS + 1, 2, kernels.N_ORDERS, channels)
        linear = _matrix(block.linear) / float(block.avg_num_neighbors)
        # e3nn keeps the components of a channel together, and maps all alike.
        sizes = [channels * (2 * order + 1) for order in range(kernels.N_ORDERS)]
        starts = np.cumsum([0, *sizes])
        mixes = [
            linear[a:b, a:b].view(channels, 2 * order + 1, channels, 2 * order + 1)[:, 0, :, 0]
            for order, (a, b) in enumerate(pairwise(starts))
        ]
        (contraction,) = product.symmetric_contractions.contractions
        factors, weights = _terms(contraction)
        elements = torch.eye(len(self._numbers), dtype=torch.float64)
        skip = [
            block.skip_tp(torch.eye(channels, dtype=torch.float64), e.expand(channels, -1)) for e in elements
        ]
        return _Layer(
            radial=splines.to(dtype).numpy().copy(),
            up=_matrix(block.linear_up).to(dtype),
            mixes=torch.stack(mixes).to(dtype),
            factors=factors,
            weights=weights.to(dtype).contiguous().numpy(),
            product=_matrix(product.linear).to(dtype),
            skip=torch.stack(skip).to(dtype),
        )

    @torch.no_grad()
    def __call__(self, atoms: Atoms) -> Evaluation:
        """Evaluate a structure.

        Raises:
            ValueError: an element is unknown to the model, or positions or the cell are not finite.
        """
        kinds = kinds_of(atoms, self._numbers)
        edges = _edges(atoms, self._cutoff)
        n = len(atoms)
        groups = [(int(kind), torch.from_numpy(np.flatnonzero(kinds == kind))) for kind in np.unique(kinds)]

        energies, by_vectors = np.empty(n), np.empty_like(edges.vectors)
        kernels.repel(*_all(edges), kinds, *self._repulsion, energies, by_vectors)
        by_vectors *= self._scale

        features = self._embedding[torch.from_numpy(kinds)]
        found: list[Tensor] = []
        kept: list[tuple[Tensor, Tensor]] = []
        for layer in self._layers:
            sent = features @ layer.up
            received = features.new_empty(kernels.N_HARMONICS, *features.shape)
            kernels.convolve(*_all(edges), layer.radial, self._step, sent.numpy(), received.numpy())
            mixed = _mix(received, layer.mixes)
            contracted = torch.empty_like(features)
            kernels.contract(kinds, layer.factors, layer.weights, mixed.numpy(), contracted.numpy())
            after = contracted @ layer.product
            for kind, members in groups:
                after[members] += features[members] @ layer.skip[kind]
            kept.append((sent, mixed))
            found.append(after)
            features = after

        hidden = found[-1] @ self._hidden_readout
        active = torch.sigmoid(hidden)
        total = (hidden * active) @ self._last_readout
        for readout, layer_features in zip(self._linear_readouts, found, strict=False):
            total = total + layer_features @ readout
        energies = self._lone[kinds] + self._scale * (energies + total.double().numpy()) + self._shift

        # Backwards, from the last layer on.
        slope = active * (1.0 + hidden * (1.0 - active))
        gradient = self._scale * (slope * self._last_readout) @ self._hidden_readout.T
        for k, layer in reversed(list(enumerate(self._layers))):
            sent, mixed = kept[k]
            by_contracted = gradient @ layer.product.T
            by_mixed = torch.empty_like(mixed)
            kernels.contract_back(
                kinds, layer.factors, layer.weights, mixed.numpy(), by_contracted.numpy(), by_mixed.numpy()
            )
            by_received = _mix(by_mixed, layer.mixes.transpose(1, 2))
            by_sent = torch.zeros_like(sent)
            kernels.convolve_back(
                *_all(edges), layer.radial, self._step, sent.numpy(), by_received.numpy(), k > 0,
                by_vectors, by_sent.numpy(),
            )  # fmt: skip
            if k == 0:  # what comes before depends on elements alone
                break
            before = by_sent @ layer.up.T + self._scale * self._linear_readouts[k - 1]
            for kind, members in groups:
                before[members] += gradient[members] @ layer.skip[kind].T
            gradient = before

        forces, virial = np.empty((n, 3)), np.empty((3, 3))
        kernels.gather(*_all(edges), by_vectors, forces, virial)
        stress = virial / atoms.get_volume()
        return Evaluation(float(energies.sum()), forces, stress, torch.cat(found, dim=1))


def kinds_of(atoms: Atoms, known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each atom's element among a model's atomic numbers, which rise.

    Raises:
        ValueError: an element is not among them.
    """
    unknown = set(atoms.numbers.tolist()) - set(known.tolist())
    if unknown:
        raise ValueError("unknown elements: " + ", ".join(chemical_symbols[z] for z in sorted(unknown)))
    return np.searchsorted(known, atoms.numbers)


def neighbours(atoms: Atoms, cutoff: float, quantities: str) -> Any:
    """matscipy's neighbour list.

    Raises:
        ValueError: positions or the cell are not finite. An atom nowhere would be a lone one, of finite energy.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError("positions or the cell are not finite")
    return neighbour_list(quantities, atoms=atoms, cutoff=cutoff)


def _edges(atoms: Atoms, cutoff: float) -> _Edges:
    receiver, sender, towards_sender = neighbours(atoms, cutoff, "ijD")
    first = np.concatenate([[0], np.cumsum(np.bincount(receiver, minlength=len(atoms)))])
    return _Edges(first, sender.astype(np.int64), -towards_sender.reshape(-1, 3))


def _all(edges: _Edges) -> tuple[Any, Any, Any]:
    return edges.first, edges.sender, edges.vectors


def _mix(rows: Tensor, mixes: Tensor) -> Tensor:
    """Map features of each order, `9 x n x C`, by its matrix."""
    out = torch.empty_like(rows)
    for order, matrix in enumerate(mixes):
        part = slice(order**2, (order + 1) ** 2)
        torch.mm(rows[part].flatten(0, 1), matrix, out=out[part].flatten(0, 1))
    return out


def _matrix(linear: Any) -> Tensor:
    """Of a linear map of e3nn, its normalisation included: what it makes of each unit vector."""
    found: Tensor = linear(torch.eye(linear.irreps_in.dim, dtype=torch.float64))
    return found.detach()


def _terms(contraction: ScalarContraction) -> tuple[NDArray[np.int64], Tensor]:
    """Factors of all terms (`terms x degree`, padded by -1) and weights of the terms for each element and channel."""
    factors, weights = [], []
    for degree in range(1, contraction.correlation + 1):
        which, polynomials, paths = (
            getattr(contraction, f"{name}_{degree}") for name in ("factors", "polynomials", "paths")
        )
        padding = torch.full((contraction.correlation - degree, polynomials.shape[1]), -1)
        factors.append(torch.cat([which.view(degree, -1), padding]).T)
        weights.append(torch.einsum("rt,pr,epc->etc", polynomials, paths, contraction._weights_of(degree)))
    return torch.cat(factors).contiguous().numpy(), torch.cat(weights, dim=1).detach()


def _repulsion(block: Any, numbers: Tensor) -> tuple[Any, ...]:
    """Strengths, inverse lengths and ranges by pairs of elements, shares of the exponentials, and the power."""
    charges = numbers.double()
    powers = charges ** block.a_exp.double()
    strengths = 0.5 * 14.3996 * charges.unsqueeze(1) * charges
    inverse_lengths = (powers.unsqueeze(1) + powers) / (0.529 * block.a_prefactor.double())
    radii = block.covalent_radii.double()[numbers]
    return (
        strengths.numpy(),
        inverse_lengths.numpy(),
        (radii.unsqueeze(1) + radii).numpy(),
        block.c.double().numpy(),
        int(block.p),
    )
