"""PrunedLoRA: low-rank updates that start wide and are pruned by the gradients.

Yu, Xie, Zhao, Fan, Xue, Zhang, arXiv 2510.00192; see `zoo.lowrank.pruned_update`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.layers import Factorized
from zoo.lowrank.pruned_update import PrunedUpdate
from zoo.methods._fine_tuning import FineTuningMethod
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class PrunedLora(FineTuningMethod):
    """Low-rank updates that start wide and lose the components whose loss costs least, by their gradients.

    In a factorized layer the update is one of S, so that no rank grows.
    """

    start: int = 32
    """Components of each update when training starts."""
    rank: int = 8
    """Components of each update at the end."""
    end: float = 0.6
    """Share of the training's steps after which no more are cut."""
    interval: int = 10
    """Steps between two cuts."""

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= self.start:
            raise UserError(f"rank {self.rank} is invalid: at least 1 component, and no more than start {self.start}")

    def adapters(self, layer: nn.Module) -> dict[str, nn.Module]:
        """Return the update of S, or of a dense weight."""
        tensor = "S" if isinstance(layer, Factorized) else "weight"
        return {tensor: PrunedUpdate(layer.get_parameter(tensor), self.start, self.rank)}

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the pruning of the updates."""
        from zoo.callbacks import UpdatePruning  # a finished model needs no Lightning

        return [UpdatePruning(self.end, self.interval)]
