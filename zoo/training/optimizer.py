"""Optimizers by name."""

from typing import Any, Literal

import torch


def build_optimizer(
    name: Literal["sgd", "adamw"], groups: list[dict[str, Any]], lr: float, momentum: float
) -> torch.optim.Optimizer:
    """Return the optimizer of a training.

    Args:
        name: ``sgd`` or ``adamw``.
        groups: parameter groups, each with its weight decay.
        lr: the largest learning rate.
        momentum: of SGD, and the first of AdamW's two coefficients.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum)
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))
