"""Estimate BatchNorm's statistics anew: those of a network whose layers were changed are no longer its own."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.runtime.eval_mode import evaluating


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set running means and variances to averages over batches of images, in place; weights stay as they are.

    Everything else, such as dropout, is in eval mode meanwhile.

    Args:
        model: its modes are the same afterwards.
        batches: (B, C, H, W) each, as the model takes them, B > 1; at least one.

    Returns:
        How many BatchNorms the model has; without any, no batch is run.
    """
    norms: list[Any] = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches
            norm.training = True
        try:
            for images in batches:
                model(images)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return len(norms)
