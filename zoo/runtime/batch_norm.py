"""Estimate BatchNorm's statistics anew: those of a network whose layers were changed are no longer its own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.runtime.eval_mode import evaluating


def batch_norms(model: nn.Module) -> list[Any]:
    """Return the BatchNorms with running statistics, in the model's order."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def running_statistics(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return copies of all running means, one after the other, and of all running variances."""
    norms = batch_norms(model)
    empty = torch.zeros(0)
    means, variances = ([getattr(norm, name) for norm in norms] or [empty] for name in ("running_mean", "running_var"))
    return torch.cat(means), torch.cat(variances)


@torch.no_grad()
def load_running_statistics_(model: nn.Module, means: Tensor, variances: Tensor) -> None:
    """Set all running means and variances, in place, to those that `running_statistics` returned."""
    norms = batch_norms(model)
    sizes = [len(norm.running_mean) for norm in norms]
    for norm, mean, variance in zip(norms, means.split(sizes), variances.split(sizes), strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@contextmanager
def running_statistics_in(model: nn.Module, means: Tensor, variances: Tensor) -> Iterator[None]:
    """Read and update running statistics in other tensors inside.

    Args:
        model: its own statistics stay as they are.
        means: all running means, one after the other, as `running_statistics` returns them; changed in place by passes
            in training mode.
        variances: likewise.
    """
    norms = batch_norms(model)
    own = [(norm.running_mean, norm.running_var) for norm in norms]
    sizes = [len(mean) for mean, _ in own]
    try:
        for norm, mean, variance in zip(norms, means.split(sizes), variances.split(sizes), strict=True):
            norm.running_mean, norm.running_var = mean, variance
        yield
    finally:
        for norm, (mean, variance) in zip(norms, own, strict=True):
            norm.running_mean, norm.running_var = mean, variance


def statistics_batches(rows: Tensor, size: int) -> list[Tensor]:
    """Split rows (N,) into batches on which statistics are estimated.

    A last batch of one image is left out if there are others: where its map is one pixel it has no variance.
    """
    parts = list(rows.split(size))
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) == 1 else parts


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set running means and variances to averages over batches of images, in place; weights stay as they are.

    Everything else, such as dropout, is in eval mode meanwhile.

    Args:
        model: its modes are the same afterwards.
        batches: (B, C, H, W) each, as the model takes them, at least one; see `statistics_batches`.

    Returns:
        How many BatchNorms the model has; without any, no batch is run.
    """
    norms = batch_norms(model)
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
