"""Draws of the target's greatest value, given the data and what is pending."""

from __future__ import annotations

import torch
from botorch.models.model import Model
from torch import Tensor

from activelearning.acquisition.posterior import joint_factor, joint_posterior
from activelearning.contracts import AcquisitionContext
from activelearning.errors import ConfigError


def check_sizes(n_max_samples: int, n_candidates: int) -> None:
    """Refuse numbers of draws or of reference points below 1, by their keys.

    Raises:
        ConfigError: one of them is.
    """
    for key, value in {"n_max_samples": n_max_samples, "n_candidates": n_candidates}.items():
        if value < 1:
            raise ConfigError(f"acquisition.{key} must be at least 1, not {value}.")


class Maxima:
    """The target's greatest value over reference points, drawn jointly with the answers of pending queries.

    The objective is maximised here: where it is minimised, all is of the negative target. The same normal numbers
    serve whatever is pending, so that utilities before and after a query is added differ by that query alone.

    Args:
        context: What the round knows.
        n_samples: S, draws.
        n_candidates: Most reference points.

    Raises:
        ConfigError: the context has no reference points.
    """

    def __init__(self, context: AcquisitionContext, n_samples: int, n_candidates: int) -> None:
        reference = context.reference
        if not len(reference):
            raise ConfigError(
                "An acquisition by greatest values needs reference points of the space; it has none."
            )
        generator = torch.Generator().manual_seed(context.seed % 2**63)
        if len(reference) > n_candidates:
            chosen = torch.randperm(len(reference), generator=generator)[:n_candidates]
            reference = reference[chosen.sort().values]
        column = torch.full((len(reference), 1), float(context.target), dtype=reference.dtype)
        self._model: Model = context.model
        self._points = torch.cat([reference, column], dim=-1)
        self._sign = 1.0 if context.maximize else -1.0
        self._normal = torch.randn(len(reference), n_samples, generator=generator, dtype=reference.dtype)
        self._seed, self._n_samples = context.seed, n_samples

    def draw(self, pending: Tensor) -> tuple[Tensor, Tensor]:
        """Greatest values and the pending answers drawn with them.

        Args:
            pending: Queries in flight, `p x (d + 1)`.

        Returns:
            Values, `S`, in the target's unit, and the answers as standard normals, `p x S`: L⁻¹ (y - E y), with L the
            Cholesky factor of the covariance of the noisy answers.
        """
        p = len(pending)
        with torch.no_grad():
            mean, covariance = joint_posterior(self._model, torch.cat([pending, self._points]))
            if p:
                covariance = covariance.clone()
                covariance[:p, :p] = joint_posterior(self._model, pending, noisy=True)[1]
            # Pending answers first: the factor's rows of the reference points then hold what these owe to them.
            factor = joint_factor(covariance)
            answers = self._answers(p)
            draws = mean[p:, None] + factor[p:, :p] @ answers + factor[p:, p:] @ self._normal
        return (self._sign * draws).amax(0), answers

    def _answers(self, p: int) -> Tensor:
        """Standard normals, `p x S`, whose first rows stay when p grows."""
        generator = torch.Generator().manual_seed((self._seed + 1) % 2**63)
        rows = [torch.randn(self._n_samples, generator=generator, dtype=self._normal.dtype) for _ in range(p)]
        return torch.stack(rows) if rows else self._normal.new_empty(0, self._n_samples)
