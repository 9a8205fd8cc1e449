"""Module robust sensitivity on the validation images of a training."""

from dataclasses import dataclass

import lightning.pytorch as pl
from torch import nn

from zoo.callbacks._notes import tell
from zoo.callbacks._sensitivity import Sensitivity
from zoo.errors import UserError
from zoo.runtime.eval_mode import evaluating
from zoo.sensitivity.criticality import robust_criticality
from zoo.sensitivity.held_out import HeldOut


@dataclass(frozen=True)
class HeldOutSensitivity(Sensitivity):
    """Robust criticality of each part on held-out training images: test images must not decide the pruning.

    Only the abstract of the paper on module robust sensitivity (Bai, Tabia, Santos-Rodriguez, arXiv 2410.15176) was
    available; this is the robust criticality of arXiv 2308.02533, on which that paper builds.

    Attributes:
        held_out: the validation images; None if there is no training to take them from.
        images: how many of them.
        climb: gradient steps of each part's weights.
    """

    held_out: HeldOut | None
    images: int = 256
    climb: int = 5

    def check(self, pl_module: pl.LightningModule) -> None:
        """Raise `UserError` if there are no validation images."""
        if not self.held_out:
            raise UserError("sensitivities are measured on validation images: give a --val-fraction above 0")

    def measure(self, pl_module: pl.LightningModule, parts: dict[str, list[nn.Parameter]]) -> dict[str, float]:
        """Measure how much the adversarial loss grows when a part moves in its worst direction, in eval mode."""
        self.check(pl_module)
        assert self.held_out is not None
        with evaluating(pl_module.get_submodule("model")) as model:
            context = self.held_out.context(model, self.images)
            found = robust_criticality(context, steps=self.climb, modules=parts)
        figures = ", ".join(f"{part} {s:.3g}" for part, s in found.items())
        tell(pl_module.trainer, f"robust sensitivity: {figures}")
        return found
