"""First-order change of the trained loss without a channel."""

from typing import ClassVar

from torch import nn

from zoo.channels.criteria._base import Criterion, Scores, summed
from zoo.channels.graph import ChannelGraph


class Taylor(Criterion):
    """How much the trained loss, adversarial or not, would change without a channel, to first order.

    Molchanov, Mallya, Tyree, Frosio, Kautz: Importance estimation for neural network pruning, CVPR 2019, arXiv
    1906.10771: (sum of gradient times parameter)^2, summed over the steps before a cut. As there, the parameters are
    scale and shift of the normalisation, if there is one: with the weights before it the sum is zero, since the loss
    does not depend on their scale.
    """

    needs_gradients: ClassVar[bool] = True

    def observe(self, network: nn.Module, graph: ChannelGraph) -> Scores:
        """Return the squared first-order changes at this step."""
        found = {}
        parameters = dict(network.named_parameters())
        for group in graph.sizes:
            names = graph.scales[group] or graph.producers[group]
            changes = {}
            for name in (*names, *(f"{name.removesuffix('weight')}bias" for name in names)):
                p = parameters.get(name)
                if p is not None and p.grad is not None:
                    changes[name] = (p.grad * p.detach()).float().flatten(1).sum(1) if p.ndim > 1 else p.grad * p.data
            if changes:
                found[group] = summed(graph, group, changes).square()
        return found

    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Return the gathered scores; a frozen group, which got no gradients, has none."""
        return {group: gathered[group] for group in graph.sizes if group in gathered}
