"""Plain layers in place of one: the deployed form of a factorized layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from zoo.linalg.mode_products import multiply_modes

if TYPE_CHECKING:
    from jaxtyping import Float

L = TypeVar("L", nn.Linear, nn.Conv2d)
GEOMETRY = (
    *("in_features", "out_features"),
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
)
"""Attributes of a linear or convolution layer besides its weight and bias."""


class FactorChain(nn.Sequential):
    """Two or three plain layers that replace one; ``weight``, ``bias`` and sizes are those of the replaced layer.

    Models read them off their layers (BEiT the weight, DaViT the kernel size), so a chain must still have them.

    Args:
        layers: two linear layers; k x k and 1 x 1 convolutions; or 1 x 1, k x k and 1 x 1 convolutions. Only the last
            has a bias.
    """

    def __init__(self, *layers: nn.Linear | nn.Conv2d) -> None:
        super().__init__(*layers)
        first, core, last = layers[0], layers[-2], layers[-1]
        for name in GEOMETRY:
            if hasattr(core, name):
                part = first if name.startswith("in_") else last if name.startswith("out_") else core
                setattr(self, name, getattr(part, name))

    @property
    def weight(self) -> Float[Tensor, "n c *kernel"]:
        """The product of the layers' weights, in the shape of the replaced layer."""
        *first, core, last = (self.get_parameter(f"{i}.weight") for i in range(len(self)))
        if first:
            return multiply_modes(last.flatten(1), core, first[0].flatten(1).T)
        return (last.flatten(1) @ core.flatten(1)).reshape(last.shape[0], *core.shape[1:])

    @property
    def bias(self) -> Float[Tensor, " n"] | None:
        """The last layer's bias; the others have none."""
        return dict(self[-1].named_parameters()).get("bias")


def filled(layer: L, weight: Float[Tensor, " ..."], bias: Float[Tensor, " n"] | None) -> L:
    """Return ``layer`` with the given weight (any shape with the same number of elements) and bias, on their device.

    Each takes gradients if the given tensor does.
    """
    layer = layer.to(weight.device, weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        layer.weight.requires_grad_(weight.requires_grad)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
            layer.bias.requires_grad_(bias.requires_grad)
    return layer
