"""Narrow low-rank updates while they train."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from zoo.errors import UserError
from zoo.lowrank.pruned_update import PrunedUpdate


class UpdatePruning(Callback):
    """Cuts components of every `PrunedUpdate` until each has its final rank.

    The number of components falls linearly with the steps. All that a cut needs is in the updates' buffers, so that a
    resumed training makes the same cuts.

    Args:
        end: share of the training's steps after which the ranks are final.
        interval: steps between two cuts, over which gradients are gathered.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(self, end: float = 0.6, interval: int = 10) -> None:
        if not 0 < end <= 1:
            raise UserError(f"end {end} is invalid: ranks are final after a share of the steps, 0 < end <= 1")
        if interval < 1:
            raise UserError(f"interval {interval} is invalid: gradients are gathered over at least 1 step")
        self.end, self.interval = end, interval
        self._steps = 0
        self._updates: list[PrunedUpdate] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the updates."""
        self._updates = [module for module in pl_module.modules() if isinstance(module, PrunedUpdate)]
        self._steps = max(1, int(self.end * trainer.estimated_stepping_batches))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Gather the gradients, until the last cut."""
        if trainer.global_step < self._steps:
            for update in self._updates:
                update.gather_()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Cut, at every interval and at the end."""
        step = trainer.global_step
        if step <= self._steps and (step % self.interval == 0 or step == self._steps):
            for update in self._updates:
                update.prune_(round(update.width - (update.width - update.rank) * step / self._steps))
