"""Ranks of the smaller networks that the leading components of a factorized network are."""

from collections.abc import Sequence

from zoo.budget import BLOCKS
from zoo.errors import UserError
from zoo.lowrank.factorize import Layer, Ranks
from zoo.lowrank.rank_selection import Shares, compression_ranks


def compression_at(layers: Sequence[Layer], total: int, ranks: Ranks) -> float:
    """Return the share of the dense network's parameters that is removed at some ranks.

    Args:
        layers: all layers that have a rank.
        total: parameters of the dense network.
        ranks: of the layers.
    """
    return sum(x.n * x.m - x.deployed_size(ranks[x.name]) for x in layers) / total


def nested_ranks(
    layers: Sequence[Layer], total: int, largest: Ranks, compression: float, inside: Ranks | None = None
) -> Ranks:
    """Choose the ranks of a network inside a larger one for a compression.

    Layers keep weights in the proportions of the largest network, which a budget of multiply-accumulates may have made
    unequal. Layers whose factors do not pay in the largest network keep their rank.

    Args:
        layers: all layers that have a rank.
        total: parameters of the dense network.
        largest: the ranks of the largest network.
        inside: ranks that are not exceeded, of a smaller network around this one; None: those of the largest.
        compression: share of ``total`` to remove, in (0, 1).

    Returns:
        A rank for each layer.

    Raises:
        UserError: rank 1 everywhere leaves more; the message names the most possible.
    """
    shrinking = [x for x in layers if x.factorized_size(largest[x.name]) == x.deployed_size(largest[x.name])]
    if not shrinking:
        raise UserError("no layer of the largest network is of low rank: nothing is nested in it")
    kept = {x.name: x.factorized_size(largest[x.name]) / (x.n * x.m) for x in shrinking}
    most = max(kept.values())
    cap = inside or largest
    equal = compression_ranks(shrinking, total, compression, Shares(most=cap))
    least = {name: min(rank, BLOCKS[0]) for name, rank in equal.items()}  # kernels compute 16 channels at a time
    shares = Shares({name: share / most for name, share in kept.items()}, least, cap)
    return largest | compression_ranks(shrinking, total, compression, shares)
