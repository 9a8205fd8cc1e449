"""Module robust sensitivity on the validation images of a run."""

from dataclasses import dataclass

import lightning.pytorch as pl
from torch import nn

from zoo.callbacks._sensitivity import Sensitivity
from zoo.criticality import robust_criticality
from zoo.data._split import stratified
from zoo.errors import UserError
from zoo.modes import evaluating
from zoo.probes import Subject
from zoo.training.module import Classifier


@dataclass(frozen=True)
class HeldOutSensitivity(Sensitivity):
    """Robust criticality of each part on held-out training images: test images must not decide what is pruned.

    The paper on module robust sensitivity (Bai, Tabia, Santos-Rodriguez, arXiv 2410.15176) was at hand as an abstract
    only; this is the robust criticality of arXiv 2308.02533, on which it is modelled.

    Attributes:
        images: how many.
        climb: gradient steps of each part's weights.
    """

    images: int = 256
    climb: int = 5

    def check(self, pl_module: pl.LightningModule) -> None:
        """Raise `UserError` if there are no validation images."""
        assert isinstance(pl_module, Classifier)
        if not len(pl_module.val_indices):
            raise UserError("sensitivities are measured on validation images: give a --val-fraction above 0")

    def measure(self, pl_module: pl.LightningModule, parts: dict[str, list[nn.Parameter]]) -> dict[str, float]:
        """Measure how much the adversarial loss grows when a part moves in its worst direction, in eval mode."""
        assert isinstance(pl_module, Classifier)
        source = pl_module.source
        rows = pl_module.val_indices.to(source.labels.device)
        rows = rows[stratified(source.labels[rows].cpu(), self.images, seed=0).to(rows.device)]
        eps = pl_module.config.threat.eps
        with evaluating(pl_module.model) as model:
            subject = Subject(model, source.fetch(rows), source.labels[rows], eps)
            found = robust_criticality(subject, steps=self.climb, modules=parts)
        pl_module.print("robust sensitivity: " + ", ".join(f"{part} {s:.3g}" for part, s in found.items()))
        return found
