"""Choose ranks: for a share of the parameters to remove, or for a fixed fraction of the full rank."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.budget import BLOCKS, OVERSHOOT, bisect, percent_removed
from zoo.errors import UserError
from zoo.lowrank.factorize import Layer, Ranks
from zoo.lowrank.layers import MERGE_ABOVE

NARROWEST = 16
"""Layers of a smaller full rank stay dense: too few weights to save, and every direction is needed."""


def fraction_ranks(layers: list[Layer], fraction: float, keep_full: set[str]) -> Ranks:
    """Return ceil(fraction * full rank) for every layer that can be factorized, full rank for ``keep_full``."""
    return {
        layer.name: layer.full_rank if layer.name in keep_full else math.ceil(fraction * layer.full_rank)
        for layer in layers
        if not layer.obstacle
    }


def fast_ranks(layer: Layer, block: int) -> list[int]:
    """Return the ranks a layer may take: multiples of the block that pay, and powers of two below it; ascending."""
    small = [2**i for i in range(10) if 2**i < block]
    ranks = small + list(range(block, layer.full_rank + 1, block))
    size = MERGE_ABOVE * layer.n * layer.m
    return [rank for rank in ranks if rank <= layer.full_rank and layer.factorized_size(rank) <= size]


@dataclass(frozen=True)
class Shares:
    """The ratios between the shares of weights that layers keep.

    Attributes:
        relative: part of the common share that a layer keeps, by its name, in (0, 1]; 1 for layers that are not named.
        least: rank that a named layer keeps whatever its share.
    """

    relative: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)

    def of(self, layer: Layer, common: float) -> float:
        """Return the largest number of weights that a layer may keep."""
        return common * self.relative.get(layer.name, 1.0) * layer.n * layer.m

    def common(self, layer: Layer, rank: int) -> float:
        """Return the common share at which a layer keeps this rank."""
        return layer.factorized_size(rank) / self.of(layer, 1.0)


EQUAL = Shares()


def _shared_out(layers: list[Layer], common: float, block: int, shares: Shares) -> Ranks:
    """Give each layer the largest allowed rank within its share of its weights (or the smallest rank)."""
    ranks = {}
    for layer in layers:
        levels, most, least = fast_ranks(layer, block), shares.of(layer, common), shares.least.get(layer.name, 0)
        fitting = [r for r in levels if layer.factorized_size(r) <= most or r <= least]
        ranks[layer.name] = fitting[-1] if fitting else levels[0]
    return ranks


def compressible(layers: list[Layer], keep: set[str]) -> list[Layer]:
    """Return the layers whose factors can pay, except those named in ``keep``.

    Raises:
        UserError: there are none; the message gives the most frequent reason.
    """
    inner = [layer for layer in layers if layer.name not in keep]
    chosen = [x for x in inner if not x.obstacle and x.full_rank >= NARROWEST and fast_ranks(x, 16)]
    if not chosen:
        reasons = Counter(layer.obstacle or "too small" for layer in inner)
        why = "".join(f" ({count} of {len(inner)}: {reason})" for reason, count in reasons.most_common(1))
        raise UserError(f"no inner layer of this backbone can be compressed{why}: choose another backbone")
    return chosen


def compression_ranks(layers: list[Layer], total: int, compression: float, shares: Shares = EQUAL) -> Ranks:
    """Choose ranks so that the deployed model, S merged into U, keeps at most (1 - compression) of its parameters.

    Every layer keeps about the same share of its weights, or its part of ``shares``. Ranks are rounded down to
    multiples of 16. The remainder goes to the layers furthest below their share, in steps of 16, and in finer steps
    only if the target would be overshot by more than `OVERSHOOT`.

    Args:
        layers: the layers to factorize, all `compressible`.
        total: the number of parameters of the whole dense model.
        compression: share of ``total`` to remove, in (0, 1).
        shares: which layers keep less than others.

    Raises:
        UserError: even rank 1 everywhere leaves too many parameters; the message names the most possible.
    """
    fixed = total - sum(layer.n * layer.m for layer in layers)
    target = (1 - compression) * total

    def size(ranks: Ranks) -> int:
        return fixed + sum(layer.factorized_size(ranks[layer.name]) for layer in layers)

    smallest = size({layer.name: 1 for layer in layers})
    if smallest > target:
        raise UserError(
            f"compression {compression} cannot be reached here: rank 1 in all {len(layers)} layers that can be "
            f"factorized removes {percent_removed(smallest, total)} %; give a smaller compression or a wider backbone"
        )
    for block in BLOCKS:
        common = bisect(lambda x, block=block: size(_shared_out(layers, x, block, shares)) <= target, 0.0, 1.0)  # type: ignore[misc]
        ranks = _shared_out(layers, common, block, shares)
        if size(ranks) > target:
            continue
        _spend(layers, ranks, target - size(ranks), block, shares)
        if target - size(ranks) <= OVERSHOOT * total:
            break
    return ranks


def _spend(layers: list[Layer], ranks: Ranks, left: float, block: int, shares: Shares) -> None:
    """Raise ranks one step at a time, starting with the layer furthest below its share, while parameters are left."""
    while True:
        steps = []
        for layer in layers:
            rank = ranks[layer.name]
            above = [r for r in fast_ranks(layer, block) if r > rank]
            cost = layer.factorized_size(above[0]) - layer.factorized_size(rank) if above else math.inf
            if cost <= left:
                steps.append((shares.common(layer, rank), layer.name, above[0], cost))
        if not steps:
            return
        _, name, rank, cost = min(steps)
        ranks[name] = rank
        left -= cost
