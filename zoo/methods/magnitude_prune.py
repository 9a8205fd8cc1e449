"""Channel pruning by magnitude and fine-tuning: the reference that other ways to prune must beat."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from zoo.budget import Budget
from zoo.channels import prune_, trace_channels
from zoo.channels.criteria.l2 import L2
from zoo.channels.width_selection import choose_widths
from zoo.methods._pruning import BACKBONE, ChannelMethod, compression
from zoo.runtime.complexity import count_params
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class MagnitudePrune(ChannelMethod):
    """One cut of the channels with the smallest L2 norms, the same share in every layer, then fine-tuning."""

    def compress(self, model: nn.Module, budget: Budget | None) -> nn.Module:
        """Cut the channels with the smallest norms, at once, in place."""
        graph, total = trace_channels(model), count_params(model)
        chosen = choose_widths(graph, graph.sizes, (1 - compression(budget)) * total, total)
        scores = L2().scores(model, graph, {})
        prune_(model, graph, {group: scores[group].cpu().topk(width).indices for group, width in chosen.items()})
        return model

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the pruning."""
        from zoo.callbacks import ChannelPruning  # a finished model needs no Lightning

        return [ChannelPruning(compression(budget), "l2", begin=self.begin, network=BACKBONE)]
