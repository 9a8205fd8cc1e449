"""Module robust sensitivity on the validation images of a run."""

from dataclasses import dataclass

import lightning.pytorch as pl

from zoo.callbacks.channel_pruning import Sensitivity
from zoo.channels import ChannelGraph
from zoo.channels.sensitivity import module_robust_sensitivity
from zoo.data._split import stratified
from zoo.errors import UserError
from zoo.probes import Subject
from zoo.training.module import Classifier


@dataclass(frozen=True)
class HeldOutSensitivity(Sensitivity):
    """Measures sensitivities on held-out training images: test images must not decide what is pruned.

    Attributes:
        images: how many.
        climb: gradient steps of each group's weights.
    """

    images: int
    climb: int

    def check(self, pl_module: pl.LightningModule) -> None:
        """Raise `UserError` if there are no validation images."""
        assert isinstance(pl_module, Classifier)
        if not len(pl_module.val_indices):
            raise UserError("adaptive ratios are measured on validation images: give a --val-fraction above 0")

    def measure(self, pl_module: pl.LightningModule, graph: ChannelGraph) -> dict[str, float]:
        """Measure it by group, in eval mode."""
        assert isinstance(pl_module, Classifier)
        source, model, training = pl_module.source, pl_module.model, pl_module.model.training
        rows = pl_module.val_indices.to(source.labels.device)
        rows = rows[stratified(source.labels[rows].cpu(), self.images, seed=0).to(rows.device)]
        eps = pl_module.config.threat.eps
        subject = Subject(model.eval(), source.fetch(rows), source.labels[rows], eps)
        found = module_robust_sensitivity(subject, graph, steps=self.climb, prefix="backbone.")
        model.train(training)
        pl_module.print("robust sensitivity: " + ", ".join(f"{group} {s:.3g}" for group, s in found.items()))
        return found
