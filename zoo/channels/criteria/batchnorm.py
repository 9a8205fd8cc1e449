"""Scale of the normalisation that follows a channel."""

from torch import nn

from zoo.channels.criteria._base import Criterion, Scores, squared_rows, summed
from zoo.channels.graph import ChannelGraph


class BatchNorm(Criterion):
    """The size of a channel's normalisation scales, or L2 norms if a group has none.

    Liu, Li, Shen, Huang, Yan, Zhang: Learning efficient convolutional networks through network slimming, ICCV 2017,
    arXiv 1708.06519. Scales of layer normalisation count in the same way.
    """

    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Return the sum of |scale| over the normalisation layers of a group."""
        found = {}
        for group in graph.sizes:
            scales = {name: network.get_parameter(name).detach().float().abs() for name in graph.scales[group]}
            rows = scales or squared_rows(network, graph.producers[group])
            found[group] = summed(graph, group, rows)
        return found
