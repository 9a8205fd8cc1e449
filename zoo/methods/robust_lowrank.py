"""CondLR: low-rank training with bounded condition numbers.

Savostianova, Zangrando, Ceruti, Tudisco: Robust low-rank training via approximate orthonormal
constraints, NeurIPS 2023, arXiv 2306.01485.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn

from zoo.backbone import ends
from zoo.budget import Budget, larger_start
from zoo.errors import UserError
from zoo.lowrank.factorize import Ranks, in_form, weight_layers
from zoo.lowrank.layers import factorized_layers
from zoo.lowrank.macs_rank_selection import budget_ranks
from zoo.lowrank.rank_selection import compressible, fraction_ranks
from zoo.methods._factorized import FactorizedMethod
from zoo.methods.lowrank import DEFAULT_BUDGET
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class RobustLowrank(FactorizedMethod):
    """CondLR: low-rank weights U S V^T, U and V orthonormal, condition number of S at most 1 + tau.

    After every optimizer step U and V are retracted to orthonormal columns, their R factors go into S, and
    the singular values of S are clipped around their mean. The network's relative sensitivity to its input
    is bounded by a product of the layers' condition numbers, and kappa(U S V^T) = kappa(S).

    Differences from the authors' released code: momentum stays tangent (re-projected after each
    retraction), the step of U and V is scaled by r / ||S||_F^2 in place of kappa(S)^-2, R is absorbed in S
    instead of dropped, and no bias is added to convolutions that had none. Layers too narrow to compress (including the
    first and the last) keep full rank and are constrained too.
    """

    renamed: ClassVar[Mapping[str, str]] = {"spare": "sensitivity_range"}

    tau: float = 0.1
    """Condition numbers stay at most 1 + tau; 0 makes all singular values of a layer equal."""
    rank_budget: Literal["fixed", "adaptive"] = "fixed"
    """Fixed: every layer keeps the same share. Adaptive: start larger, then cut where it affects the loss least."""
    saliency: Literal["second_order", "gradient", "spectrum"] = "second_order"
    """With adaptive ranks: how much the loss depends on a singular component."""
    allocation: Literal["saliency", "sensitivity"] = "saliency"
    """With adaptive ranks: how much each layer loses, by its components' saliency or its sensitivity (as mrs_prune)."""
    sensitivity_range: float = 0.4
    """With allocation by sensitivity: the difference between the least and the most sensitive layer's share."""
    start: float = 2.0
    """With adaptive ranks: parameters at the start of training, as a multiple of the final number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tau < float("inf"):
            raise UserError(f"tau {self.tau} is invalid: the condition number's bound 1 + tau needs a tau from 0 up")
        if not self.start > 1:
            raise UserError(f"start {self.start} is invalid: adaptive ranks start with more than they end with")
        if not 0 < self.sensitivity_range <= 1:
            raise UserError(
                f"sensitivity_range {self.sensitivity_range} is invalid: shares differ by more than 0 and at most 1"
            )
        if self.allocation == "sensitivity" and self.rank_budget == "fixed":
            raise UserError("allocation sensitivity shares out ranks that adapt: give --method.rank_budget adaptive")

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Choose ranks for the budget (default: 80 % of the parameters removed); full rank if nothing is saved."""
        budget = budget or DEFAULT_BUDGET
        ended = self._plan(model, budget)  # an impossible budget is refused here, before any training
        return ended if self.rank_budget == "fixed" else self._plan(model, larger_start(budget, self.start))

    def _plan(self, model: nn.Module, budget: Budget) -> Ranks:
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

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the retraction of U and V, then the clamp of S; before them, if ranks adapt, their pruning."""
        # A finished model needs neither them nor Lightning.
        from zoo.callbacks import HeldOutSensitivity, OrthonormalRetraction, RankPruning, SpectrumClamp

        constraints = [OrthonormalRetraction(), SpectrumClamp(self.tau)]
        if self.rank_budget == "fixed":
            return [*constraints]
        pruning = RankPruning(
            (budget or DEFAULT_BUDGET).compression,
            saliency=self.saliency,
            sensitivity=HeldOutSensitivity(held_out) if self.allocation == "sensitivity" else None,
            sensitivity_range=self.sensitivity_range,
        )
        return [pruning, *constraints]  # in this order: it gathers the gradients that the retraction then rescales
