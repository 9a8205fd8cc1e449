"""Plain low-rank training: what everybody does, and what breaks."""

from dataclasses import dataclass

from torch import nn

from zoo.backbone import ends
from zoo.lowrank.factorize import Convolution, Layer, LayerReport, Ranks, factorize, fold, in_form, weight_layers
from zoo.lowrank.layers import Init
from zoo.lowrank.macs_rank_selection import budget_ranks
from zoo.lowrank.rank_selection import Budget, compressible, fraction_ranks
from zoo.methods._base import Method

DEFAULT_BUDGET = Budget(compression=0.8)


@dataclass(frozen=True)
class Lowrank(Method):
    """Low-rank weights W = U S V^T trained by plain gradient descent, without any constraint."""

    init: Init = "weights"
    """Start the factors from the backbone's weights (truncated SVD) or at random (same norm)."""

    convolution: Convolution = "matrix"
    """Form of k x k convolutions: matrix (k x k, then 1 x 1) or tucker (1 x 1, k x k, 1 x 1)."""

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Choose ranks for the budget (default: 80 % of the parameters removed).

        Under a compression target the first and the last layer stay dense. Under a rank fraction the first is
        factorized like the others and the last at full rank, as in CondLR.
        """
        budget = budget or DEFAULT_BUDGET
        layers = in_form(weight_layers(model), self.convolution)
        first, last = ends(model)
        if budget.compression is None:
            assert budget.rank_fraction is not None
            return fraction_ranks(layers, budget.rank_fraction, last)
        return budget_ranks(model, compressible(layers, first | last), budget)

    @property
    def keeps_weights(self) -> bool:
        """Whether factors start from the dense weights, not at random."""
        return self.init == "weights"

    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Replace each layer that has a rank by its factorization."""
        return factorize(model, ranks, self.init, self.convolution)

    def report(self, layers: list[Layer], ranks: Ranks) -> list[LayerReport]:
        """Say what became of each layer of the dense model, for the card."""
        return super().report(in_form(layers, self.convolution), ranks)

    def finish(self, model: nn.Module) -> nn.Module:
        """Merge S into U, and multiply out the factors that do not pay."""
        return fold(model)
