"""The contract of a criterion."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from zoo.channels.graph import Axis, ChannelGraph

Scores = dict[str, Tensor]
"""Of each group of channels, one number per channel."""


class Criterion(ABC):
    """Scores each channel of a group; the least important are removed first.

    A subclass is in a file of its own, whose name is the criterion's. Scores are compared only within a group: the
    criterion does not decide how much each group loses.
    """

    needs_gradients: ClassVar[bool] = False

    def observe(self, network: nn.Module, graph: ChannelGraph) -> Scores:
        """Return statistics of a step's gradients; a cut gets their sums over the steps before it."""
        return {}

    @abstractmethod
    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Return the scores of every group: (channels,), higher is more important."""


def summed(graph: ChannelGraph, group: str, of_rows: dict[str, Tensor]) -> Tensor:
    """Add up the scores of the rows of a group's tensors, by channel: (channels,).

    Args:
        graph: the channels.
        group: of channels.
        of_rows: per tensor, one number for each position along dimension 0.
    """
    parts = [graph.per_channel(group, Axis(name, 0), values) for name, values in of_rows.items()]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def squared_rows(network: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Return the squared L2 norm of every row of some weights."""
    return {name: network.get_parameter(name).detach().float().flatten(1).square().sum(1) for name in names}
