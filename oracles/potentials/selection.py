"""The skip connection of a MACE whose nodes carry scalars: a linear map of each atom's features by its element.

mace-torch writes it as a tensor product of the features with the one-hot code of the element, and multiplies mostly by
zeros: 36 elements cost 36 times what one does. Here the atoms of each element that is present are mapped together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ElementLinear(torch.nn.Module):
    """Drop-in for the `skip_tp` of an interaction block of mace-torch; it takes over its weights and their names.

    Args:
        product: An `e3nn.o3.FullyConnectedTensorProduct` of scalars and one-hot codes.
    """

    def __init__(self, product: Any) -> None:
        super().__init__()
        (instruction,) = product.instructions
        self.shape = instruction.path_shape  # channels x n_elements x channels
        self.path_weight = float(instruction.path_weight)
        self.weight = product.weight
        self.register_buffer("output_mask", product.output_mask)

    def forward(self, features: Tensor, elements: Tensor) -> Tensor:
        """Map features, `n x channels`, by one-hot codes, `n x n_elements`."""
        kinds = elements.argmax(dim=1)
        order = torch.argsort(kinds, stable=True)
        present, counts = torch.unique_consecutive(kinds[order], return_counts=True)
        # All maps in one selection: the gradient of each slice would be written into a table of all elements.
        maps = self.weight.view(self.shape).transpose(0, 1).index_select(0, present).unbind()
        parts = features.index_select(0, order).split(counts.tolist())
        mapped = torch.cat([part @ map_ for part, map_ in zip(parts, maps, strict=True)])
        return self.path_weight * mapped.index_select(0, torch.argsort(order))


def use_element_maps(model: torch.nn.Module) -> None:
    """Replace the skip connections of a MACE's blocks, in place, wherever nodes carry scalars; weights stay."""
    network: Any = model
    for block in network.interactions:
        product = block.skip_tp
        if product.irreps_in1.lmax == product.irreps_out.lmax == 0:
            block.skip_tp = ElementLinear(product)
