"""The contract of a criterion."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from zoo.channels.graph import Axis, ChannelGraph

Scores = dict[str, Tensor]
"""Of each group of channels, one number per channel."""


class Criterion(ABC):
    """Says how much each channel of a group matters; the least important go first.

    A subclass is in a file of its own, whose name is the criterion's. Scores are compared within a group only: how
    much each group loses is not the criterion's question.
    """

    needs_gradients: ClassVar[bool] = False

    def observe(self, network: nn.Module, graph: ChannelGraph) -> Scores:
        """Return what a step's gradients say; a cut gets the sums over the steps before it."""
        return {}

    @abstractmethod
    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Return the scores of every group: (channels,), higher is more important."""


def summed(graph: ChannelGraph, group: str, of_rows: dict[str, Tensor]) -> Tensor:
    """Add up what the rows of a group's tensors are worth, by channel: (channels,).

    Args:
        graph: the channels.
        group: whose.
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
