"""The coregionalised process by variational inducing points alone, hyper-parameters and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from activelearning.contracts import Space
from activelearning.errors import ConfigError
from activelearning.fidelity import Fidelity
from surrogates.multi_fidelity_gp import MultiFidelityGP


class SparseVariationalGP(MultiFidelityGP):
    """Sparse variational Gaussian process with intrinsic coregionalisation over the fidelity.

    Hyper-parameters maximise the collapsed bound of the evidence of all observations (`surrogates.sparse_gp`). Up to
    `n_inducing` observations every one is an inducing point and the process is the exact one.

    Args:
        space: Gives the features, `n x d`.
        fidelities: The campaign's fidelities, by index.
        n_inducing: Most inducing points: a fit costs their square times the number of observations.
        max_iterations: As `GaussianProcessSurrogate`.
        cold_every: As `GaussianProcessSurrogate`.

    Raises:
        ConfigError: as `GaussianProcessSurrogate`.
    """

    fits_bound: ClassVar[bool] = True

    def __init__(
        self,
        space: Space,
        fidelities: Sequence[Fidelity],
        *,
        n_inducing: int = 300,
        max_iterations: int = 60,
        cold_every: int = 10,
    ) -> None:
        if n_inducing < 1:
            raise ConfigError(f"surrogate.n_inducing must be at least 1, not {n_inducing}.")
        super().__init__(
            space,
            fidelities,
            max_iterations=max_iterations,
            cold_every=cold_every,
            size_limit=n_inducing,
            n_inducing=n_inducing,
        )
