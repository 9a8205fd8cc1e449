"""Allocation of a cut over layers: how many singular components each loses, from their saliency."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from zoo.budget import BLOCKS, MOST, OVERSHOOT
from zoo.errors import UserError
from zoo.lowrank.factorize import Layer, Ranks
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.rank_selection import fast_ranks

if TYPE_CHECKING:
    from jaxtyping import Float, Float64


@dataclass(frozen=True)
class Size:
    """Parameters of a network in its deployed form: dense, the factors that may be cut, and all the rest."""

    dense: int
    factors: int
    rest: int


def deployed_size(model: nn.Module) -> Size:
    """Count a network's deployed parameters: S merged into U, factors that do not pay multiplied out."""
    layers = [layer for _, layer in factorized_layers(model)]
    own = {id(p) for layer in layers for p in (layer.U, layer.S, layer.V)}
    plain = sum(p.numel() for p in model.parameters() if id(p) not in own)
    full = {layer: layer.weight_shape.numel() for layer in layers}
    factors = sum(layer.deployed_weights for layer in layers if layer.pays)
    merged = sum(size for layer, size in full.items() if not layer.pays)
    return Size(plain + sum(full.values()), factors, plain + merged)


def factor_budget(size: Size, compression: float, layers: list[Layer], ranks: Ranks) -> float:
    """Return how many parameters layers may keep so that the network loses a share of its own; below 0 if impossible.

    Args:
        size: of the current network.
        compression: share of the dense network's parameters to remove, 0 to 1.
        layers: whose ranks may shrink; the others keep their parameters.
        ranks: their current ones.
    """
    others = size.factors + size.rest - sum(layer.deployed_size(ranks[layer.name]) for layer in layers)
    return (1 - compression) * size.dense - others


def cut_on_schedule(
    layers: list[Layer],
    ranks: Ranks,
    scores: dict[str, Float[Tensor, " _"]],
    start: float,
    target: float,
    progress: float,
    total: int,
) -> Ranks:
    """Lower ranks to the size of a cubic schedule: fast first, by `cut_to_size` at its end.

    The size is target + (start - target) (1 - progress)^3, as in AdaLoRA (arXiv 2303.10512, equation 13).

    Args:
        layers, ranks, scores, total: see `cut_to_size`.
        start, target: sizes of the layers as deployed at progress 0 and 1.
        progress: 0 to 1.
    """
    if progress >= 1:
        return cut_to_size(layers, ranks, scores, target, total)
    return cut_towards(layers, ranks, scores, target + (start - target) * (1 - progress) ** 3)


def cut_to_size(
    layers: list[Layer], ranks: Ranks, scores: dict[str, Float[Tensor, " _"]], size: float, total: int
) -> Ranks:
    """Lower ranks until the factors hold at most ``size`` parameters, the least saliency per parameter first.

    Ranks go down to multiples of 16 (powers of two below), and in finer steps only if the size would be
    undershot by more than `zoo.budget.OVERSHOOT` of the dense model.

    Args:
        layers: whose ranks may shrink.
        ranks: the current ones.
        scores: of each layer's components, >= 0, descending: those of `zoo.lowrank.saliency`.
        size: wanted sum of their weights as deployed.
        total: parameters of the whole dense model.

    Raises:
        UserError: not even rank 1 in every layer is small enough.
    """
    least = sum(layer.deployed_size(1) for layer in layers)
    if least > size:
        raise UserError(
            f"the budget leaves {math.floor(size)} parameters for {len(layers)} factorized layers, and rank 1 "
            f"in all of them takes {least}: give a smaller compression"
        )
    for block in BLOCKS:
        chosen = _one_below(layers, cut_towards(layers, ranks, scores, size, block), scores, size, block)
        if size - sum(layer.deployed_size(chosen[layer.name]) for layer in layers) <= OVERSHOOT * total:
            break
    return chosen


def cut_towards(
    layers: list[Layer], ranks: Ranks, scores: dict[str, Float[Tensor, " _"]], size: float, block: int = BLOCKS[0]
) -> Ranks:
    """Lower ranks in steps of ``block``, cheapest first, without going below the size.

    It ends at the first step that is too large. Smaller steps of other layers may still fit, but they cost more, and a
    schedule that took them at each of its cuts would empty the small layers in favour of the large ones.
    """
    by_name = {layer.name: layer for layer in layers}
    chosen = {name: ranks[name] for name in by_name}
    left = sum(layer.deployed_size(chosen[layer.name]) for layer in layers) - size
    heap = [step for x in layers if (step := _step_down(x, chosen[x.name], scores[x.name], block))]
    heapq.heapify(heap)
    while heap and heap[0].saved <= left:
        step = heapq.heappop(heap)
        left -= step.saved
        chosen[step.name] = step.rank
        if after := _step_down(by_name[step.name], step.rank, scores[step.name], block):
            heapq.heappush(heap, after)
    return chosen


def _one_below(
    layers: list[Layer], ranks: Ranks, scores: dict[str, Float[Tensor, " _"]], size: float, block: int
) -> Ranks:
    """Go below the size with the cheapest step that is large enough, or with several if none is."""
    ranks = dict(ranks)
    while (left := sum(layer.deployed_size(ranks[layer.name]) for layer in layers) - size) > 0:
        steps = [step for x in layers if (step := _step_down(x, ranks[x.name], scores[x.name], block))]
        if not steps:
            break
        step = min([step for step in steps if step.saved >= left] or steps)
        ranks[step.name] = step.rank
    return ranks


class _Step(NamedTuple):
    """One layer's next rank down: the saliency it costs per parameter, and the parameters it saves."""

    price: float
    name: str
    rank: int
    saved: int


def _step_down(layer: Layer, rank: int, scores: Float[Tensor, " r"], block: int) -> _Step | None:
    lower = lower_rank(layer, rank, block)
    if lower is None:
        return None
    saved = layer.deployed_size(rank) - layer.deployed_size(lower)
    lost = scores[lower:rank].double().sum().item()
    return _Step(lost / saved, layer.name, lower, saved)


def lower_rank(layer: Layer, rank: int, block: int) -> int | None:
    """Return the next rank below that runs fast, or None."""
    below = [level for level in fast_ranks(layer, block) if level < rank]
    return below[-1] if below else None


def share_scores(layer: Layer, rank: int, offset: float) -> Float64[Tensor, " rank"]:
    """Return scores by which `cut_to_size` removes the share clip(level - offset, 0, `MOST`) of every layer's weights.

    The level is the same for all layers. A component's score per parameter is the level at which it is removed, plus 1
    so that all are positive; the weights that `MOST` keeps are removed last.

    Args:
        layer: whose components.
        rank: current number of components.
        offset: by which the layer's share is lower, in [-1, 1], see `zoo.sensitivity.criticality.ratio_offsets`.

    Returns:
        Scores, descending, >= 0.
    """
    sizes = torch.tensor([layer.factorized_size(r) for r in range(rank + 1)], dtype=torch.float64)
    left = sizes[:-1] / (layer.n * layer.m)
    level = 1 - left + offset
    return sizes.diff() * (level + 1 + 2 * (left < 1 - MOST))


def cut_to_tolerance(layer: Layer, rank: int, scores: Float[Tensor, " r"], tolerance: float) -> int:
    """Return the lowest rank that runs fast and gives up at most tolerance^2 of the scores of a weight.

    With the scores of `zoo.lowrank.saliency.Spectrum` the relative Frobenius error of the weight is at most the
    tolerance. These scores hold the weight once, or in Tucker-2 form once for each of its two sides.
    """
    shares = scores.double().flip(0).cumsum(0) / scores.double().sum()
    needed = rank - int((shares <= tolerance**2 / layer.sides).sum())
    return min((level for level in fast_ranks(layer, BLOCKS[0]) if needed <= level <= rank), default=rank)
