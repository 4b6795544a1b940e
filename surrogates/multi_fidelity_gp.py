"""The default surrogate: a coregionalised Gaussian process over every fidelity's answers."""

from __future__ import annotations

from typing import Any

from surrogates.base import GaussianProcessSurrogate
from surrogates.evidence import Parametrisation
from surrogates.hyperparameters import Coordinates


class MultiFidelityGP(GaussianProcessSurrogate):
    """Gaussian process with intrinsic coregionalisation over the fidelity.

    Fidelities may measure different properties in different units; how they correlate is learned, with either sign.
    See `surrogates.coregionalised_gp` for the prior and `GaussianProcessSurrogate` for the arguments.
    """

    def _parametrise(self) -> Parametrisation:
        return Coordinates.of(self.space.n_features, len(self.fidelities), self.target)

    def _signature(self) -> dict[str, Any]:
        order = [self.target, *(f.index for f in self.fidelities if f.index != self.target)]
        return {"n_features": self.space.n_features, "order": order}
