"""Seeded, stratified choices of images."""

from collections.abc import Sequence
from hashlib import sha256

import torch
from torch import Tensor

from zoo.errors import UserError


def stratified(labels: Tensor, n: int | None, seed: int) -> Tensor:
    """Choose n indices with the same share of every class (to less than one image), in increasing order.

    Args:
        labels: (N,) class indices.
        n: how many; None or more than there are for all.
        seed: of the draw.

    Raises:
        UserError: the seed has more than 64 bits.
    """
    if not -(2**63) <= seed < 2**63:
        raise UserError(f"seed must be in [-2^63, 2^63), got {seed}")
    if n is None or n >= len(labels):
        return torch.arange(len(labels))
    counts = labels.bincount()
    # Largest remainder: whole shares first, then one more for the classes that lost most by rounding.
    take, remainder = counts * n // len(labels), counts * n % len(labels)
    take[remainder.argsort(descending=True, stable=True)[: n - int(take.sum())]] += 1
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == c][:k] for c, k in enumerate(take.tolist())]).sort().values


def held_out(keys: Sequence[str], labels: Sequence[int], fraction: float) -> set[int]:
    """Choose rows to measure on, a share of each class, by a hash of their keys: more rows hardly change the choice.

    A row of every class stays, and of a class with two one is chosen.

    Args:
        keys: of each row, whatever its place.
        labels: of each row.
        fraction: share of the rows to choose.
    """
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    chosen: set[int] = set()
    for own in rows.values():
        own.sort(key=lambda row: sha256(keys[row].encode(errors="surrogateescape")).digest())
        n = min(max(1, round(fraction * len(own))), len(own) - 1)
        chosen.update(own[:n])
    return chosen


def train_val(labels: Tensor, val_fraction: float) -> tuple[Tensor, Tensor]:
    """Split indices into training and validation, always the same way for a data set, whatever the run's seed.

    An image of every class stays for training, so that rare classes may have none for validation.

    Returns:
        The training indices, in increasing order, and the validation indices, in random order: the first few are then
        of all classes, which a data set's own first images need not be.

    Raises:
        UserError: no image would be left for training.
    """
    n = round(val_fraction * len(labels))
    if n >= len(labels):
        raise UserError(f"val-fraction {val_fraction:g} of {len(labels)} images leaves none to train on: lower it")
    val = stratified(labels, n, seed=0) if n else torch.empty(0, dtype=torch.int64)
    lost = (labels[val].bincount(minlength=int(labels.max()) + 1) == labels.bincount()).nonzero().flatten()
    first = [int((labels[val] == c).nonzero()[0]) for c in lost if bool((labels[val] == c).any())]
    chosen = torch.ones(n, dtype=torch.bool)
    chosen[first] = False
    val = val[chosen]
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[val] = False
    return keep.nonzero().flatten(), val[torch.randperm(len(val), generator=torch.Generator().manual_seed(0))]
