"""Choose ranks for two budgets at once: parameters, and multiply-accumulates."""

import math

from torch import nn

from zoo.budget import BLOCKS, Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import Layer, Ranks
from zoo.lowrank.rank_selection import Shares, compression_ranks
from zoo.runtime.complexity import Positions, count_macs, count_params, positions

EXPONENTS = tuple(i / 20 for i in range(41))
"""Exponents t to try, smallest first: a layer with p output positions keeps a share that falls as p^-t."""


def budget_ranks(model: nn.Module, layers: list[Layer], budget: Budget) -> Ranks:
    """Choose the ranks of a dense model's layers for a compression, and for a reduction of multiply-accumulates if any.

    A weight of a layer on a large map is applied at many positions, so the same parameters cost more products in
    earlier layers. Shares of weights fall with the number of output positions p as p^-t, with the smallest t that meets
    both budgets. Ranks that are at least 16 with equal shares stay at least 16, because kernels compute 16 channels at
    a time.

    Args:
        model: dense, with an ``image_shape`` (which `zoo.backbone.create_backbone` sets) if products are to be counted.
        layers: those to factorize, all `zoo.lowrank.rank_selection.compressible`, named as in the model.
        budget: a compression, with a macs_reduction or without.

    Raises:
        UserError: a budget cannot be met; the message names the most possible.
    """
    assert budget.compression is not None
    total = count_params(model)
    equal = compression_ranks(layers, total, budget.compression)
    if budget.macs_reduction is None:
        return equal
    shape = getattr(model, "image_shape", None)
    if shape is None:
        raise UserError(
            "multiply-accumulates are counted by running an image through the model: "
            "give the shape of its images (image_shape, or input_shape of zoo.compress)"
        )
    found = positions(model, shape)
    at = {name: found[module] for name, module in model.named_modules() if module in found}
    dense, least = count_macs(model, shape), {name: min(rank, BLOCKS[0]) for name, rank in equal.items()}
    most = 0.0
    for exponent in EXPONENTS:
        ranks = compression_ranks(layers, total, budget.compression, Shares(_relative(layers, at, exponent), least))
        removed = sum(x.n * x.m * at[x.name].outputs - x.factorized_macs(ranks[x.name], at[x.name]) for x in layers)
        if removed >= budget.macs_reduction * dense:
            return ranks
        most = max(most, removed / dense)
    raise UserError(
        f"macs_reduction {budget.macs_reduction} cannot be reached at compression {budget.compression}: the ranks "
        f"of these {len(layers)} layers can remove {math.floor(1000 * most) / 10} % of the multiply-accumulates; "
        "give a smaller macs_reduction or a larger compression"
    )


def _relative(layers: list[Layer], at: dict[str, Positions], exponent: float) -> dict[str, float]:
    """Return p^-t of each layer over the largest one."""
    fewest = min(max(at[layer.name].outputs, 1) for layer in layers)
    return {layer.name: (max(at[layer.name].outputs, 1) / fewest) ** -exponent for layer in layers}
