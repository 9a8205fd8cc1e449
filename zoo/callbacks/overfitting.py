"""Detect a collapse of one-step adversarial training, and roll the epoch back.

Wong, Rice, Kolter: Fast is better than free: revisiting adversarial training, ICLR 2020, arXiv 2001.03994,
section 5.4: the network learns to mislead the single gradient step, and PGD accuracy falls to zero.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from zoo.attacks.pgd import PGD
from zoo.callbacks._notes import tell
from zoo.callbacks._rank_schedule import RankSchedule
from zoo.callbacks._trainer_callbacks import peers
from zoo.channels import fit_shapes_
from zoo.runtime.eval_mode import evaluating


class OverfittingGuard(Callback):
    """Measure PGD accuracy on the same images after each epoch; if it collapses, roll the epoch back.

    `probe_soon` requests a measurement after the current step too.

    It has collapsed if PGD breaks much more than before, and much more than the single step of the training, which the
    network has learned to mislead. A network that has just lost ranks or channels is weak under both, and is left to
    recover.

    The weights, their average if there is one, the optimizer's state and the buffers return to the last checkpoint,
    which is the epoch before. Training continues from there with the later, smaller learning rates.

    Args:
        images: to probe, (B, C, H, W) in [0, 1].
        labels: (B,).
        eps: Linf radius.
        checkpoint: the file that holds the epoch before.
        share: of the best PGD accuracy so far, and of the accuracy under one step, below which an epoch has collapsed.
        step: size of the training's single step, in units of eps.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, eps: float, checkpoint: Path, share: float = 0.5, step: float = 1.25
    ) -> None:
        self.images, self.labels, self.eps = images, labels, eps
        self.checkpoint, self.share, self.step = checkpoint, share, step
        self.best = 0.0
        self._asked = False

    def probe_soon(self) -> None:
        """Measure after the current step, and roll back if the accuracy has collapsed."""
        self._asked = True

    def probe(self, pl_module: pl.LightningModule) -> tuple[float, float]:
        """Return the accuracies under PGD with ten steps, and under one large step from a random start."""
        images, labels = self.images.to(pl_module.device), self.labels.to(pl_module.device)
        with evaluating(pl_module.get_submodule("model")) as model:
            found = [
                attack(model, images, labels, [self.eps]).robust.double().mean().item()
                for attack in (PGD(steps=10), PGD(steps=1, relative_step=self.step))
            ]
        return found[0], found[1]

    def _has_collapsed(self, accuracy: float, one_step: float) -> bool:
        guessing = self.labels.bincount().max().item() / len(self.labels)
        misled = one_step >= self.share * self.best > accuracy and accuracy < self.share * one_step
        return self.best > guessing and misled

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe if it was requested, once the step is complete."""
        if self._asked and not trainer.fit_loop.epoch_loop._should_accumulate():
            row = self._look(trainer, pl_module) | {"epoch": trainer.current_epoch}
            for logger in trainer.loggers:  # Lightning's own log would repeat it at each later step of the epoch
                logger.log_metrics(row, step=trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe, and roll back if this epoch has collapsed."""
        pl_module.log_dict(self._look(trainer, pl_module))

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Probe, roll back if the accuracy has collapsed, and return the values to log."""
        self._asked = False
        # Broadcast; otherwise one process could roll back and the others not.
        accuracy, one_step = trainer.strategy.broadcast(self.probe(pl_module))
        found = {"probe_pgd_accuracy": accuracy, "probe_one_step_accuracy": one_step}
        if self._has_collapsed(accuracy, one_step) and self.checkpoint.is_file():
            self._go_back(trainer, pl_module)
            tell(
                trainer,
                f"catastrophic overfitting in epoch {trainer.current_epoch + 1}: PGD accuracy on training images fell "
                f"from {self.best:.1%} to {accuracy:.1%}; restored the epoch before",
            )
            found["rolled_back"] = 1.0
        self.best = max(self.best, accuracy)
        return found

    def _go_back(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self._load(trainer, pl_module, saved)
        for optimizer, state in zip(trainer.optimizers, saved["optimizer_states"], strict=True):
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    @staticmethod
    def _load(trainer: pl.Trainer, pl_module: pl.LightningModule, saved: dict[str, Any]) -> None:
        """Load weights, their average and their ranks. Cuts since then are undone, and made again later."""
        fit_shapes_(pl_module, saved["state_dict"])
        pl_module.load_state_dict(saved["state_dict"])
        for averaging in peers(trainer, WeightAveraging):
            assert averaging._average_model is not None
            fit_shapes_(averaging._average_model.module, saved["state_dict"])
            averaging.on_load_checkpoint(trainer, pl_module, saved)
        for schedule in peers(trainer, RankSchedule):
            schedule.go_back(trainer, saved["callbacks"][schedule.state_key])

    def state_dict(self) -> dict[str, Any]:
        """Return the best accuracy, for resuming."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        self.best = state_dict["best"]
