"""L2 norm of the weights that compute a channel."""

from torch import nn

from zoo.channels.criteria._base import Criterion, Scores, squared_rows, summed
from zoo.channels.graph import ChannelGraph


class L2(Criterion):
    """The L2 norm of all weights that compute a channel.

    Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient convnets, ICLR 2017, arXiv 1608.08710, which takes
    the L1 norm.
    """

    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Return the norms, over all layers of a group."""
        return {g: summed(graph, g, squared_rows(network, graph.producers[g])).sqrt() for g in graph.sizes}
