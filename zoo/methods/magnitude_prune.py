"""Channel pruning by magnitude and fine-tuning: the reference that other ways to prune must beat."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.lowrank.rank_selection import Budget
from zoo.methods._pruning import BACKBONE, ChannelMethod, compression
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class MagnitudePrune(ChannelMethod):
    """One cut of the channels with the smallest L2 norms, the same share in every layer, then fine-tuning."""

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the pruning."""
        from zoo.callbacks import ChannelPruning  # a finished model needs no Lightning

        return [ChannelPruning(compression(budget), "l2", begin=self.begin, network=BACKBONE)]
