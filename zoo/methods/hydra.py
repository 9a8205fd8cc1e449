"""HYDRA: channels are cut by scores learned against the adversarial loss.

Sehwag, Wang, Mittal, Jana: HYDRA: pruning adversarially robust neural networks, NeurIPS 2020, arXiv 2002.10509.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.budget import Budget
from zoo.errors import UserError
from zoo.methods._pruning import BACKBONE, ChannelMethod, compression
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class Hydra(ChannelMethod):
    """Importance scores trained through masks on the (adversarial) loss, weights frozen; then the cut and fine-tuning.

    From the paper: scores that start at the weights' magnitudes over their largest, the same share kept in every
    layer, a mask of the largest with a straight-through gradient, weights frozen, then fine-tuning. This
    project's: a score per channel in place of one per weight, Adam for the scores, and all of it in one run, whose
    first part trains the dense network unless it starts from the weights of a dense run (``warmup`` 0).
    """

    begin: float = 0.5
    """When to cut, as a share of the training's steps."""
    warmup: float = 0.3
    """Share of the steps that train the dense network before the scores; 0 is enough from a dense run's weights."""
    score_lr: float = 0.01
    """Learning rate of the scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warmup < self.begin or not self.score_lr > 0:
            raise UserError("hydra trains scores from warmup to begin: give 0 <= warmup < begin, and score_lr > 0")

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the search for masks and the cut."""
        from zoo.callbacks import MaskSearch  # a finished model needs no Lightning

        return [MaskSearch(compression(budget), self.begin, self.warmup, self.score_lr, network=BACKBONE)]
