"""The networks of the proxy: residual perceptrons over crystal inputs, with the file format of their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from oracles.ml_proxy.inputs import SPREAD, Array

WIDTH = 192
DEPTH = 3
EMBEDDING = 16  # numbers learned for each space group, beside its descriptors
DROPOUT = 0.05
N_LATENT = 32  # directions of the last layer in which distance from the training set is measured
N_FRACTIONS = 103  # leading inputs: fractions of elements, which keep their scale
FRACTION_SCALE = 4.0


class Network(nn.Module):
    """One member of an ensemble: inputs and space group to a mean, the logarithm of an error, and auxiliary properties.

    Args:
        centre: Means of the inputs over the training rows, `d`.
        scale: Their standard deviations, `d`.
        n_outputs: Outputs: mean, log error, and one for each auxiliary property.
    """

    centre: Tensor
    scale: Tensor
    latent_mean: Tensor
    latent_map: Tensor

    def __init__(self, centre: Tensor, scale: Tensor, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.register_buffer("latent_mean", torch.zeros(WIDTH))
        self.register_buffer("latent_map", torch.zeros(WIDTH, N_LATENT))
        self.embedding = nn.Embedding(230, EMBEDDING)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.first = nn.Linear(len(centre) + EMBEDDING, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.last = nn.Linear(WIDTH, n_outputs)

    def latent(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """The last hidden layer, `n x WIDTH`, of inputs `n x d` (see `inputs`) and space groups `n`.

        Scaled inputs level off at a few standard deviations: far out, a prediction tends to a constant instead of
        running away along a line.
        """
        scaled = (inputs - self.centre) / self.scale
        fractions = FRACTION_SCALE * inputs[:, :N_FRACTIONS]
        x = torch.cat([fractions, SPREAD * torch.tanh(scaled[:, N_FRACTIONS:] / SPREAD)], dim=1)
        h = nn.functional.silu(self.first(torch.cat([x, self.embedding(groups - 1)], dim=1)))
        for block in self.blocks:
            h = h + nn.functional.dropout(nn.functional.silu(block(h)), DROPOUT, self.training)
        return h

    def forward(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """Outputs, `n x n_outputs`, in units of the training values' scale."""
        outputs: Tensor = self.last(self.latent(inputs, groups))
        return outputs

    def outputs_and_distance(self, inputs: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, `n x n_outputs`, and distance from the training rows, `n`.

        The distance is Mahalanobis' in the leading principal directions of the last hidden layer, divided by the square
        root of their number: about 1 for a typical training row. Its square is, up to a factor, the variance that the
        uncertain weights of the last layer give the output (Snoek et al., ICML 2015).
        """
        h = self.latent(inputs, groups)
        whitened = (h - self.latent_mean) @ self.latent_map
        return self.last(h), whitened.square().mean(dim=1).sqrt()

    @torch.no_grad()
    def learn_distance(self, inputs: Tensor, groups: Tensor) -> None:
        """Set the directions of the distance from the training rows, `n x d` and `n`."""
        h = self.latent(inputs, groups).double()
        mean = h.mean(dim=0)
        _, deviations, directions = torch.linalg.svd(h - mean, full_matrices=False)
        deviations = deviations / max(1, len(h) - 1) ** 0.5
        known = directions[:N_LATENT] / deviations[:N_LATENT, None].clamp_min(1e-6)
        self.latent_mean.copy_(mean)
        self.latent_map[:, : len(known)] = known.T

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Parameters by name in half precision, buffers in single."""
        return {
            name: value.numpy().astype(np.float32 if name in self._buffers else np.float16)
            for name, value in self.state_dict().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Network:
        """Read a network back, ready to predict."""
        state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()}
        # The draws of a new network's parameters are nobody's business: they are overwritten.
        with torch.random.fork_rng(devices=[]):
            network = cls(state["centre"], state["scale"], len(state["last.bias"]))
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)


def as_tensor(values: Array) -> Tensor:
    """Single precision, as the networks compute."""
    return torch.from_numpy(values.astype(np.float32))
