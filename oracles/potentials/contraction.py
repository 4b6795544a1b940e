"""The symmetric contraction of a MACE to scalars, as polynomials of its features.

A layer's product multiplies the features A_lm of an atom with themselves and keeps what rotations leave alone
(Batatia et al., NeurIPS 2022, 35, 11423, equations 10 and 11). mace-torch contracts the generalised Clebsch-Gordan
tensor with the weights first and writes, for each atom and channel, a tensor of (max_ell + 1)⁶ entries at body order
four. But to scalars there are few polynomials, of few terms: with harmonics to order 2 five of degree 3 (A₀³, A₀|A₁|²,
A₀|A₂|², A₁A₂A₁ and the trace of A₂³), of 11 paths that depend on each other. Here they are found from the tensor itself
and evaluated.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations
from typing import Any

import torch
from torch import Tensor

_TINY = (
    1e-6  # of the largest coefficient: what is left of a path that depends on others, in single precision too
)


class ScalarContraction(torch.nn.Module):
    """Drop-in for a `Contraction` of mace-torch whose result is scalar; it takes over its weights and their names.

    Args:
        contraction: A `mace.modules.symmetric_contraction.Contraction` to an irrep of l = 0.
    """

    def __init__(self, contraction: Any) -> None:
        super().__init__()
        self.correlation = int(contraction.correlation)
        self.weights_max = contraction.weights_max
        self.weights = contraction.weights
        # Buffers of the same names, so that a state dict is one of either's.
        for name, buffer in contraction.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for degree in range(1, self.correlation + 1):
            for name, table in zip(
                ("factors", "polynomials", "paths"), _invariants(contraction.U_tensors(degree)), strict=True
            ):
                self.register_buffer(f"{name}_{degree}", table, persistent=False)

    def forward(self, features: Tensor, elements: Tensor) -> Tensor:
        """Weighted sum of the invariants of each atom and channel.

        Args:
            features: A, `n x channels x (max_ell + 1)²`.
            elements: One-hot codes, `n x n_elements`.

        Returns:
            `n x channels`.
        """
        n, channels, n_features = features.shape
        # Features first: each factor of a term is then a row, and a polynomial a product of small matrices with rows.
        rows = features.view(n * channels, n_features).T.contiguous()
        invariants, weights = [], []
        for degree in range(1, self.correlation + 1):
            factors, polynomials, paths = (
                getattr(self, f"{name}_{degree}") for name in ("factors", "polynomials", "paths")
            )
            terms = rows.index_select(0, factors).view(degree, -1, n * channels)
            invariants.append(polynomials @ _product(terms))
            weights.append(torch.einsum("pr,epc->erc", paths, self._weights_of(degree)))
        chosen = torch.cat(weights, dim=1).index_select(0, elements.argmax(dim=1))
        return (torch.cat(invariants).view(-1, n, channels).transpose(0, 1) * chosen).sum(dim=1)

    def _weights_of(self, degree: int) -> Tensor:
        """Weights of the paths of a degree, `n_elements x n_paths x channels`; mace-torch lists them downwards."""
        weights: Tensor = self.weights_max
        if degree < self.correlation:
            weights = self.weights[self.correlation - 1 - degree]
        return weights


def _product(terms: Tensor) -> Tensor:
    result = terms[0]
    for factor in terms[1:]:
        result = result * factor
    return result


def _invariants(coupling: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The independent polynomials among a coupling's paths.

    Args:
        coupling: `n_features x … x n_features x n_paths`, one axis of features for each factor.

    Returns:
        Features that are factors of the terms, `degree n_terms`, the first factors of all terms first; coefficients of
        the terms, `n_polynomials x n_terms`; and of the polynomials in the paths, `n_paths x n_polynomials`.
    """
    degree, n_features = coupling.dim() - 1, len(coupling)
    exact = coupling.double()
    # Coefficients of the monomials: an entry of the tensor counts for each order of its indices.
    monomials = list(combinations_with_replacement(range(n_features), degree))
    coefficients = torch.stack(
        [sum((exact[order] for order in set(permutations(m))), torch.zeros(())) for m in monomials], dim=1
    )
    scale = coefficients.abs().max().clamp(min=1e-300)
    used = (coefficients.abs() > _TINY * scale).any(dim=0).nonzero().flatten().tolist()
    coefficients = coefficients[:, used]
    chosen: list[int] = []
    for path in range(len(coefficients)):
        tried = coefficients[[*chosen, path]]
        if torch.linalg.matrix_rank(tried, atol=float(_TINY * scale)) > len(chosen):
            chosen.append(path)
    polynomials = coefficients[chosen]
    paths = torch.linalg.lstsq(polynomials.T, coefficients.T).solution.T if chosen else coefficients[:, :0]
    factors = torch.tensor([[monomials[which][place] for which in used] for place in range(degree)])
    dtype = coupling.dtype
    return factors.flatten(), polynomials.to(dtype), paths.to(dtype)


def use_scalar_contractions(model: torch.nn.Module) -> None:
    """Replace the contractions to scalars of a MACE's products, in place; weights stay as they are."""
    network: Any = model
    for product in network.products:
        contractions = product.symmetric_contractions.contractions
        for k, contraction in enumerate(contractions):
            if contraction.U_tensors(1).dim() == 2:  # no axis for the components of the result
                contractions[k] = ScalarContraction(contraction)
