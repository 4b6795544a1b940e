"""A composition network for the comparison of proxy models: a set of elements in, a number out, bounds in the loss.

Every element of a crystal is a vector of its properties and its fraction; one network takes each of them, and their
weighted sum goes with cell and symmetry to a second network (Zaheer et al., Deep Sets, NeurIPS 2017). The loss of a
bound is that of what the prediction is above it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from activelearning.crystals.descriptors import DESCRIPTOR_NAMES
from activelearning.crystals.elements import element_rows, properties
from oracles.ml_proxy.inputs import PROPERTIES

Array = NDArray[np.float64]
N_NETWORKS, N_STEPS, WIDTH = 1, 150, 64
_FRACTIONS = [DESCRIPTOR_NAMES.index(f"fraction_{symbol}") for symbol in element_rows()]
_OTHERS = [
    i
    for i, name in enumerate(DESCRIPTOR_NAMES)
    if name.startswith(("is_", "centering_", "cos_"))
    or name in ("a", "b", "c", "volume_per_atom", "n_atoms", "li_per_volume", "ionicity", "entropy")
]


class SetNetwork(nn.Module):
    """Elements present (`n x k`, their rows), fractions (`n x k`) and other numbers (`n x d`) to a value (`n`)."""

    def __init__(self, elements: Tensor, n_others: int) -> None:
        super().__init__()
        self.register_buffer("elements", elements)
        self.each = nn.Sequential(nn.Linear(elements.shape[1] + 1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.all = nn.Sequential(
            nn.Linear(WIDTH + n_others, WIDTH), nn.SiLU(), nn.Dropout(0.2), nn.Linear(WIDTH, 1)
        )

    def forward(self, present: Tensor, fractions: Tensor, others: Tensor) -> Tensor:
        """Values, `n`."""
        each = self.each(torch.cat([self.elements[present], fractions[..., None]], dim=2))
        pooled = (fractions[..., None] * each).sum(dim=1)
        return self.all(torch.cat([pooled, others], dim=1))[:, 0]


def fit_and_predict(x: Array, y: Array, is_bound: NDArray[np.bool_], new: Array, seed: int) -> Array:
    """Predictions, `m`, for new rows (`m x len(DESCRIPTOR_NAMES)`) from `n` rows."""
    most = int((np.vstack([x, new])[:, _FRACTIONS] > 0.0).sum(axis=1).max())
    elements = properties(PROPERTIES)
    elements = (elements - elements.mean(axis=0)) / elements.std(axis=0)
    centre, scale = x[:, _OTHERS].mean(axis=0), x[:, _OTHERS].std(axis=0)
    scale = np.where(scale > 0.0, scale, np.inf)

    def inputs(rows: Array) -> tuple[Tensor, Tensor, Tensor]:
        # The elements of a row first; slots beyond them have a fraction of zero and add nothing.
        present = np.argsort(-rows[:, _FRACTIONS], axis=1, kind="stable")[:, :most]
        fractions = np.take_along_axis(rows[:, _FRACTIONS], present, axis=1)
        others = np.clip((rows[:, _OTHERS] - centre) / scale, -4.0, 4.0)
        return (
            torch.from_numpy(present),
            torch.from_numpy(fractions).float(),
            torch.from_numpy(others).float(),
        )

    known, asked = inputs(x), inputs(new)

    middle, spread = float(np.median(y)), float(np.std(y))
    wanted, bound = torch.from_numpy((y - middle) / spread).float(), torch.from_numpy(is_bound)
    total = np.zeros(len(new))
    for k in range(N_NETWORKS):
        torch.manual_seed(1000 * seed + k)
        network = SetNetwork(torch.from_numpy(elements).float(), len(_OTHERS))
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, N_STEPS)
        for _ in range(N_STEPS):
            optimiser.zero_grad()
            above = network(*known) - wanted
            error = torch.where(bound, above.clamp_min(0.0), above)
            nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.3).backward()
            optimiser.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            total += network(*asked).double().numpy()
    return middle + spread * total / N_NETWORKS
