"""Fitting one network of the proxy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from oracles.ml_proxy.inputs import Array
from oracles.ml_proxy.network import Network, as_tensor

EPOCHS = 70
BATCH = 128
LEARNING_RATE = 4e-3
WARM_UP = 0.15  # share of the steps in which the learning rate rises; it falls by a cosine in the rest
WEIGHT_DECAY = 1e-2
MAX_GRADIENT = 5.0
HUBER = 0.05  # error, in standard deviations of the values, where the loss turns from squared to absolute
LOG_ERROR = (-7.0, 1.0)  # limits of a stated error's logarithm, in units of the values' scale
ERROR_PENALTY = 1e-3  # on squared weights of the error's layer
ERROR_STEPS = 100


@dataclass(frozen=True)
class Rows:
    """Rows to train on.

    Attributes:
        inputs: `n x d`.
        groups: International numbers, `n`.
        targets: The property and then the auxiliary ones, `n x t`; NaN where a row has none.
    """

    inputs: Array
    groups: npt.NDArray[np.int64]
    targets: Array


def fit_network(rows: Rows, *, seed: int, epochs: int = EPOCHS) -> tuple[Network, float, float]:
    """Fit a network by AdamW, with a learning rate that rises and falls once (Smith & Topin, arXiv 1708.07120).

    Auxiliary properties share all layers but the last: formation energies teach what a band gap, known of half the
    rows, needs to know of bonding. The error is left to `fit_error`.

    Args:
        rows: The rows.
        seed: Of parameters, order of the rows and dropout.
        epochs: Passes over the rows.

    Returns:
        The network, and the mean and scale of the property: it predicts `mean + scale x output`.
    """
    centre, deviation = rows.inputs.mean(axis=0), rows.inputs.std(axis=0)
    scale = np.where(deviation < 1e-8, 1.0, deviation)
    mean, spread = np.nanmean(rows.targets, axis=0), np.nanstd(rows.targets, axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    is_known = as_tensor(np.isfinite(rows.targets).astype(np.float64))
    targets = as_tensor(np.nan_to_num((rows.targets - mean) / spread))
    inputs, groups = as_tensor(rows.inputs), torch.from_numpy(rows.groups)
    batch = min(BATCH, len(rows.groups))
    n_batches = len(rows.groups) // batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(as_tensor(centre), as_tensor(scale), 1 + rows.targets.shape[1])
        optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, LEARNING_RATE, total_steps=epochs * n_batches, pct_start=WARM_UP
        )
        for _ in range(epochs):
            order = torch.randperm(len(groups))
            for k in range(n_batches):
                chosen = order[k * batch : (k + 1) * batch]
                optimiser.zero_grad()
                loss = _loss(network(inputs[chosen], groups[chosen]), targets[chosen], is_known[chosen])
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
                optimiser.step()
                schedule.step()
    network.eval().requires_grad_(False)
    network.learn_distance(inputs, groups)
    return Network.from_arrays(network.arrays()), float(mean[0]), float(spread[0])


def _loss(outputs: Tensor, targets: Tensor, is_known: Tensor) -> Tensor:
    """Huber's loss of mean and auxiliary properties, summed over what is known of a row; mean over the batch."""
    guesses = torch.cat([outputs[:, :1], outputs[:, 2:]], dim=1)
    huber = nn.functional.smooth_l1_loss(guesses, targets, beta=HUBER, reduction="none")
    return (huber * is_known).sum(dim=1).mean()


def fit_error(network: Network, inputs: Array, groups: npt.NDArray[np.int64], residuals: Array) -> Network:
    """Let a network state its error by a linear layer on its last hidden one, fitted to a Laplace likelihood.

    Errors of rows that a network was trained on say nothing of new rows. So the residuals are those that other networks
    made on these rows when they had not seen them.

    Args:
        network: The network.
        inputs: Of rows it was trained on, `n x d`.
        groups: International numbers, `n`.
        residuals: Absolute errors of held-out predictions for these rows, in units of the values' scale, `n`.
    """
    with torch.no_grad():
        h = network.latent(as_tensor(inputs), torch.from_numpy(groups)).double()
    mean, deviation = h.mean(dim=0), h.std(dim=0).clamp_min(1e-6)
    x = (h - mean) / deviation
    r = torch.from_numpy(residuals)
    weights = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = r.mean().clamp_min(1e-6).log().detach().requires_grad_()
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=ERROR_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        log_error = (x @ weights + bias).clamp(*LOG_ERROR)
        loss = (log_error + r * torch.exp(-log_error)).mean() + ERROR_PENALTY * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        network.last.weight[1] = (weights / deviation).float()
        network.last.bias[1] = (bias - (weights * mean / deviation).sum()).float()
    return Network.from_arrays(network.arrays())
