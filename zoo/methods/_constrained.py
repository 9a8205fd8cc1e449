"""Base of the methods whose factors are orthonormal and well conditioned."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from zoo.backbone import ends
from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import Ranks, in_form, weight_layers
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.macs_rank_selection import budget_ranks
from zoo.lowrank.rank_selection import compressible, fraction_ranks
from zoo.methods._factorized import FactorizedMethod


@dataclass(frozen=True, kw_only=True)
class ConstrainedMethod(FactorizedMethod):
    """Low-rank weights U S V^T with orthonormal U and V and a bounded condition number of S."""

    tau: float = 0.1
    """Condition numbers stay at most 1 + tau; 0 makes all singular values of a layer equal."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tau < float("inf"):
            raise UserError(f"tau {self.tau} is invalid: the condition number's bound 1 + tau needs a tau from 0 up")

    def ranks_for(self, model: nn.Module, budget: Budget) -> Ranks:
        """Choose ranks for a budget: full rank for layers where nothing is saved.

        Raises:
            UserError: the budget cannot be met.
        """
        layers = in_form(weight_layers(model), self.convolution)
        first, last = ends(model)
        if budget.compression is None:
            assert budget.rank_fraction is not None
            return fraction_ranks(layers, budget.rank_fraction, last)
        chosen = budget_ranks(model, compressible(layers, first | last), budget)
        return {x.name: chosen.get(x.name, x.full_rank) for x in layers if not x.obstacle}

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Return the groups with no decay on U and V: the weight's scale is in S."""
        factors = {id(p) for _, layer in factorized_layers(model) for p in (layer.U, layer.V)}
        groups = super().parameter_groups(model, weight_decay)
        return [
            {
                "params": [p for p in groups[0]["params"] if id(p) not in factors],
                "weight_decay": weight_decay,
            },
            {"params": groups[1]["params"], "weight_decay": 0.0},
            {"params": [p for p in groups[0]["params"] if id(p) in factors], "weight_decay": 0.0},
        ]
