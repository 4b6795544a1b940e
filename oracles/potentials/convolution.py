"""The convolution of a MACE whose nodes carry scalars, as products of small matrices.

Each edge sends R_k,l(r) h_k Y_lm(r̂) from its sender to its receiver, for channel k and the harmonics l, m (Batatia et
al., NeurIPS 2022, 35, 11423, equation 8 with l₂ = 0). e3nn writes a tensor `n_edges x channels x (2l + 1)` for each l,
several times where forces are trained on, and spends most of its time on memory. Here the edges of a receiver are
padded to one length, and the sum over them is a matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ScalarConvolution(torch.nn.Module):
    """Drop-in for the `conv_tp` of an interaction block of mace-torch with its `conv_fusion` set.

    Args:
        channels: Scalars of each node.
        max_ell: Highest order of the spherical harmonics.
    """

    def __init__(self, channels: int, max_ell: int) -> None:
        super().__init__()
        self.channels = channels
        self.max_ell = max_ell

    def forward(
        self, node_feats: Tensor, edge_attrs: Tensor, tp_weights: Tensor, edge_index: Tensor
    ) -> Tensor:
        """Sum of messages at each receiver.

        Args:
            node_feats: h, `n x channels`.
            edge_attrs: Y, `n_edges x (max_ell + 1)²`.
            tp_weights: R, `n_edges x (max_ell + 1) channels`, those of l = 0 first.
            edge_index: Sender and receiver, `2 x n_edges`.

        Returns:
            `n x channels (max_ell + 1)²`: for each l a block of channels, 2l + 1 components each, as e3nn lays it out.
        """
        sender, receiver = edge_index[0], edge_index[1]
        n, n_orders = len(node_feats), self.max_ell + 1
        place, width = _places(receiver, n)
        sent = tp_weights.view(-1, n_orders, self.channels) * node_feats.index_select(0, sender).unsqueeze(1)
        padded = _padded(sent.reshape(-1, n_orders * self.channels), place, n, width)
        harmonics = _padded(edge_attrs, place, n, width)
        # One product for all pairs of a harmonic and a radial order, of which those of equal l are kept: slices of the
        # padded tables would cost more than the waste. The few harmonics come first: the other order is slow.
        products = torch.bmm(harmonics.transpose(1, 2), padded).view(n, -1, n_orders, self.channels)
        kept = [
            products[:, ell**2 : (ell + 1) ** 2, ell].transpose(1, 2).reshape(n, -1)
            for ell in range(n_orders)
        ]
        return torch.cat(kept, dim=1)


def _places(receiver: Tensor, n: int) -> tuple[Tensor, int]:
    """Row of each edge in a table of `n x width` rows, and the width: the most edges that an atom receives."""
    degrees = torch.bincount(receiver, minlength=n)
    width = max(1, int(degrees.max())) if n else 1
    order = torch.argsort(receiver, stable=True)
    starts = torch.cumsum(degrees, 0) - degrees
    rank = torch.empty_like(receiver)
    rank[order] = torch.arange(len(receiver), device=receiver.device) - starts[receiver[order]]
    return receiver * width + rank, width


def _padded(rows: Tensor, place: Tensor, n: int, width: int) -> Tensor:
    return rows.new_zeros(n * width, rows.shape[1]).index_copy_(0, place, rows).view(n, width, -1)


def use_scalar_convolutions(model: torch.nn.Module) -> None:
    """Replace the convolutions of a MACE's blocks, in place, wherever nodes carry scalars alone.

    Weights stay as they are: an e3nn convolution of this kind has none of its own.
    """
    network: Any = model
    for block in network.interactions:
        nodes = block.conv_tp.irreps_in1
        if nodes.lmax == 0:
            block.conv_tp = ScalarConvolution(nodes.dim, block.conv_tp.irreps_in2.lmax)
            block.conv_fusion = True
