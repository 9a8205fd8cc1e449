"""Layer-adaptive magnitude."""

import torch
from torch import Tensor, nn

from zoo.channels.criteria._base import Criterion, Scores, squared_rows, summed
from zoo.channels.graph import ChannelGraph


class Lamp(Criterion):
    """A row's squared norm over the sum of those at least as large, averaged over the layers of a group.

    Lee, Park, Mo, Ahn, Shin: Layer-adaptive sparsity for the magnitude-based pruning, ICLR 2021, arXiv 2010.07611, for
    rows in place of single weights. In a group of one layer it ranks as L2 does. If a group has several layers, it
    weighs them equally, whatever the size of their weights.
    """

    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Return the averaged scores."""
        found = {}
        for group in graph.sizes:
            rows = squared_rows(network, graph.producers[group])
            found[group] = summed(graph, group, {name: _lamp(x) for name, x in rows.items()}) / len(rows)
        return found


def _lamp(squares: Tensor) -> Tensor:
    ordered, order = squares.sort(descending=True)
    score = ordered / ordered.cumsum(0).clamp_min(torch.finfo(ordered.dtype).tiny)
    return torch.empty_like(score).scatter_(0, order, score)
