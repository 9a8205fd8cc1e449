"""Count parameters and multiply-accumulates."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.runtime.eval_mode import evaluating


class Positions(NamedTuple):
    """Positions of a layer's input and output in one image's forward pass (a vector has 1)."""

    inputs: int
    outputs: int


def count_params(model: nn.Module) -> int:
    """Return the number of trainable and frozen parameters, shared ones once, buffers not counted."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of one image's forward pass in linear and convolution layers.

    Attention's own products and elementwise work are not counted.

    Args:
        model: made of plain `nn.Linear` and `nn.Conv2d` (fold a factorized one first).
        image_shape: (channels, height, width).
    """
    return sum(found.outputs * layer.weight.numel() for layer, found in positions(model, image_shape).items())


@torch.no_grad()
def positions(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[nn.Linear | nn.Conv2d, Positions]:
    """Return the positions of each plain linear and convolution layer; for a layer applied twice, their sum.

    Args:
        model, image_shape: see `count_macs`.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    found = dict.fromkeys(layers, Positions(0, 0))

    def count(layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            before, after = layer.in_features, layer.out_features
        else:
            before, after = layer.in_channels, layer.out_channels
        found[layer] = Positions(
            found[layer].inputs + inputs[0].numel() // before, found[layer].outputs + output.numel() // after
        )

    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with evaluating(model):
            model(torch.zeros(1, *image_shape, device=next(model.parameters(), torch.empty(0)).device))
    finally:
        for handle in handles:
            handle.remove()
    return found
