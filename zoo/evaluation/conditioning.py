"""The condition number of every layer's weight matrix."""

import torch
from torch import nn

from zoo.linalg import condition_number
from zoo.lowrank.layers import Factorized

ACCURATE = 1e-12
"""Smallest (sigma_min / sigma_max)^2 at which eigenvalues of W W^T in fp64, cheaper than an SVD, suffice."""
BACKBONE = "backbone."
"""Prefix of a layer's name in a model made by `zoo.backbone.with_normalization`."""


@torch.no_grad()
def condition_numbers(model: nn.Module) -> dict[str, float | None]:
    """Return the condition number of each linear and convolution layer: sigma_max / sigma_min of its weight.

    A convolution's weight is the matrix ``weight.flatten(1)``, n x m; all min(n, m) singular values count,
    or for a factorized layer the r of its product U S V^T. A layer whose weight is not one such matrix (a
    grouped or depthwise convolution, or a subclass that computes its weight) gets None.
    This is kappa of CondLR (arXiv 2306.01485), whose product over the layers bounds the relative sensitivity.

    Args:
        model: in the form it was trained in, with or without its normalisation.

    Returns:
        Condition numbers >= 1 (inf for a singular weight), by the layer's name in the bare backbone.
    """
    found: dict[str, float | None] = {}
    for name, module in model.named_modules():
        if isinstance(module, Factorized):
            found[name.removeprefix(BACKBONE)] = module.condition_number()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            found[name.removeprefix(BACKBONE)] = _dense(module)
    return found


def _dense(module: nn.Linear | nn.Conv2d) -> float | None:
    if type(module) not in (nn.Linear, nn.Conv2d) or getattr(module, "groups", 1) != 1:
        return None
    weight = module.weight.flatten(1).double()
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    squared = torch.linalg.eigvalsh(wide @ wide.mT)
    if squared[0] > ACCURATE * squared[-1]:
        return (squared[-1] / squared[0]).sqrt().item()
    return condition_number(torch.linalg.svdvals(weight)).item()
