"""Count parameters and multiply-accumulates."""

import math

import torch
from torch import Tensor, nn


def count_params(model: nn.Module) -> int:
    """Return the number of trainable and frozen parameters, shared ones once, buffers not counted."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of one image's forward pass in linear and convolution layers.

    Attention's own products and elementwise work are not counted.

    Args:
        model: made of plain `nn.Linear` and `nn.Conv2d` (fold a factorized one first).
        image_shape: (channels, height, width).
    """
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            total += output.numel() * math.prod(module.weight.shape[1:])

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    training = model.training
    try:
        model.eval()(torch.zeros(1, *image_shape, device=next(model.parameters()).device))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return total
