"""The sizes of a nested network: ranks and BatchNorm statistics of the smaller networks inside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.lowrank.factorize import Layer, Ranks
from zoo.lowrank.nested_ranks import compression_at, nested_ranks
from zoo.lowrank.prefix import prefixes_applied
from zoo.runtime.batch_norm import running_statistics, running_statistics_in

if TYPE_CHECKING:
    from jaxtyping import Float

NAME = "sizes"
"""Attribute of the factorized network that holds its sizes."""


class Sizes(nn.Module):
    """The trained sizes below the largest one: their ranks, and their BatchNorms' running statistics as buffers.

    All sizes share every parameter. Activations of a smaller network have other means and variances, so each size has
    running statistics of its own; those of the largest are the BatchNorms' buffers.

    Args:
        compressions: of each size, ascending.
        ranks: of each size, by the layers' names in the network.
        channels: of all BatchNorms of the network together.

    Attributes:
        drawn: the sizes that the current training step trains besides the largest; None: no step has drawn any.
    """

    def __init__(self, compressions: Sequence[float], ranks: Sequence[Ranks], channels: int) -> None:
        super().__init__()
        self.compressions, self.ranks = tuple(compressions), tuple(ranks)
        self.drawn: tuple[int, ...] | None = None
        for i in range(len(self.ranks)):  # vectors, which stay fp32 in published files
            self.register_buffer(f"mean_{i}", torch.zeros(channels))
            self.register_buffer(f"variance_{i}", torch.ones(channels))

    def __len__(self) -> int:
        return len(self.ranks)

    def statistics(self, i: int) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
        """Return the running means and variances of a size."""
        return self.get_buffer(f"mean_{i}"), self.get_buffer(f"variance_{i}")

    def draw(self, between: int) -> tuple[int, ...]:
        """Return the smallest size, and distinct ones between it and the largest drawn by torch's generator."""
        inner = torch.randperm(len(self) - 1)[:between].tolist()
        return (len(self) - 1, *inner)


def sizes_of(model: nn.Module) -> tuple[nn.Module, Sizes]:
    """Return the factorized network inside a model, and its sizes.

    Raises:
        UserError: the model is not nested.
    """
    for module in model.modules():
        if isinstance(getattr(module, NAME, None), Sizes):
            return module, module.sizes  # type: ignore[return-value]
    raise UserError("this network has one size only: train it with --method nested_lowrank")


@contextmanager
def size_applied(model: nn.Module, i: int) -> Iterator[None]:
    """Compute with the leading components and the BatchNorm statistics of a size inside.

    Passes in training mode update these statistics and no others.
    """
    network, sizes = sizes_of(model)
    with prefixes_applied(network, sizes.ranks[i]), running_statistics_in(network, *sizes.statistics(i)):
        yield


@torch.no_grad()
def start_statistics_(model: nn.Module) -> None:
    """Start the statistics of every size with those of the largest network, in place."""
    network, sizes = sizes_of(model)
    found = running_statistics(network)
    for i in range(len(sizes)):
        for own, value in zip(sizes.statistics(i), found, strict=True):
            own.copy_(value)


def grid(layers: Sequence[Layer], total: int, largest: Ranks, smallest: float, step: float) -> dict[float, Ranks]:
    """Return the ranks of the sizes below the largest: at multiples of a step, up to the smallest, by compression.

    Each size lies inside the next larger one: no layer has a higher rank in it.

    Args:
        layers: all layers that have a rank.
        total: parameters of the dense network.
        largest: the ranks of the largest network.
        smallest: compression of the smallest; if it is impossible, the sizes end with the last possible one.
        step: between compressions.

    Raises:
        UserError: there is no smaller size.
    """
    begin, found, larger = compression_at(layers, total, largest), dict[float, Ranks](), largest
    counted = (round(k * step, 6) for k in range(1, math.ceil(1 / step)))
    for compression in sorted({*(c for c in counted if c < smallest), smallest}):
        if compression <= begin:
            continue
        try:
            ranks = nested_ranks(layers, total, largest, compression, larger)
        except UserError:
            if not found:
                raise
            break
        if ranks != larger:
            found[compression] = larger = ranks
    if not found:
        raise UserError(
            f"the largest network removes {begin:.1%} of the parameters already, the smallest is to remove "
            f"{smallest:.1%}: give a smaller --compression or a larger --method.smallest"
        )
    return found
