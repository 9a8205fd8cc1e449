"""Dynamical low-rank training, the plain reference for adaptive ranks.

Schotthoefer, Zangrando, Kusch, Ceruti, Tudisco: Low-rank lottery tickets, NeurIPS 2022, arXiv 2205.13571; in the form
with basis augmentation and steps on S of RobustDLRT (arXiv 2505.08022).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from zoo.budget import Budget, larger_start
from zoo.errors import UserError
from zoo.lowrank.factorize import Convolution, Ranks
from zoo.methods.lowrank import DEFAULT_BUDGET, Lowrank
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class RankAdaptive(Lowrank):
    """Dynamical low-rank training: bases widened by their gradients, steps on S, truncation by singular values.

    The truncation meets the budget, or with ``tolerance`` follows the weights, as in the paper. The first and the last
    layer stay dense. For a convolution in Tucker-2 form, as in RobustDLRT, the steps on S train the whole core.
    """

    convolution: Convolution = "tucker"
    """Form of k x k convolutions: tucker (1 x 1, k x k, 1 x 1), more accurate at equal size, or matrix."""
    tolerance: float | None = None
    """Relative error of each truncation, such as 0.1; the compression then only sets where training starts."""
    local_steps: int = 10
    """Steps on S between two truncations."""
    start: float = 2.0
    """Parameters at the start of training, as a multiple of the final number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise UserError(f"tolerance {self.tolerance} is invalid: give a relative error between 0 and 1")
        if self.local_steps < 1:
            raise UserError(f"local_steps {self.local_steps} is invalid: S needs at least one step")
        if not self.start >= 1:
            raise UserError(f"start {self.start} is invalid: training starts with no less than it ends with")

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Choose the ranks that training starts with."""
        budget = budget or DEFAULT_BUDGET
        ended = super().plan(model, budget)  # an impossible budget is refused here, before any training
        return ended if self.tolerance is not None else super().plan(model, larger_start(budget, self.start))

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the cycles of augmentation, steps on S and truncation."""
        from zoo.callbacks import DynamicalLowRank  # a finished model needs no Lightning

        compression = None if self.tolerance is not None else (budget or DEFAULT_BUDGET).compression
        return [DynamicalLowRank(compression, self.tolerance, self.local_steps)]
