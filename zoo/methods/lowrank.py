"""Plain low-rank training: the common baseline, which loses robustness."""

from dataclasses import dataclass

from torch import nn

from zoo.backbone import ends
from zoo.budget import Budget
from zoo.lowrank.factorize import Ranks, in_form, weight_layers
from zoo.lowrank.macs_rank_selection import budget_ranks
from zoo.lowrank.rank_selection import compressible, fraction_ranks
from zoo.methods._factorized import FactorizedMethod

DEFAULT_BUDGET = Budget(compression=0.8)


@dataclass(frozen=True)
class Lowrank(FactorizedMethod):
    """Low-rank weights W = U S V^T trained by plain gradient descent, without any constraint."""

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Choose ranks for the budget (default: 80 % of the parameters removed).

        Under a compression target the first and the last layer stay dense. Under a rank fraction the first layer is
        factorized like the others, and the last at full rank, as in CondLR.
        """
        budget = budget or DEFAULT_BUDGET
        layers = in_form(weight_layers(model), self.convolution)
        first, last = ends(model)
        if budget.compression is None:
            assert budget.rank_fraction is not None
            return fraction_ranks(layers, budget.rank_fraction, last)
        return budget_ranks(model, compressible(layers, first | last), budget)
