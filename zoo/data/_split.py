"""Seeded, stratified choices of images."""

import torch
from torch import Tensor


def stratified(labels: Tensor, n: int | None, seed: int) -> Tensor:
    """Choose n indices with the same share of every class, in increasing order.

    Args:
        labels: (N,) class indices.
        n: how many; None or more than there are for all.
        seed: of the draw.
    """
    if n is None or n >= len(labels):
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    # Position within its own class over the class's size: sorting by it deals the classes out evenly.
    by_class = labels[order].argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(labels)) - starts[labels[order][by_class]]
    share = (place + 0.5) / counts[labels[order][by_class]]
    return order[by_class[share.argsort(stable=True)[:n]]].sort().values


def train_val(labels: Tensor, val_fraction: float) -> tuple[Tensor, Tensor]:
    """Split indices into training and validation, always the same way for a data set, whatever the run's seed."""
    n = round(val_fraction * len(labels))
    val = stratified(labels, n, seed=0) if n else torch.empty(0, dtype=torch.int64)
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[val] = False
    return keep.nonzero().flatten(), val
