"""Prune trials whose validation accuracy is below the median of the others at the same epoch.

Optuna does not prune trials of several objectives (`Trial.report` refuses them), so their accuracies are reported to a
study of one objective beside the sweep's, whose pruner decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

NAME = "zoo sweep: accuracy by epoch"
FIRST = 5
"""Trials that are never pruned."""


class TrialPruning(Callback):
    """Report a metric after each validation; end the training with `optuna.TrialPruned` if the pruner says so.

    Args:
        storage: of the sweep.
        metric: that the training logs, larger is better.
        warmup: epochs in which nothing is pruned.
    """

    def __init__(self, storage: BaseStorage, metric: str, warmup: int) -> None:
        pruner = MedianPruner(n_startup_trials=FIRST, n_warmup_steps=warmup)
        self.study = optuna.create_study(
            study_name=NAME,
            storage=storage,
            direction="maximize",
            pruner=pruner,
            sampler=RandomSampler(),
            load_if_exists=True,
        )
        self.metric = metric
        self.trial = self.study.ask()
        self.last: tuple[int, float] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the first validation of each epoch."""
        value, epoch = trainer.callback_metrics.get(self.metric), trainer.current_epoch
        if value is None or (self.last and self.last[0] >= epoch):
            return
        self.last = epoch, float(value)
        self.trial.report(self.last[1], epoch)
        if self.trial.should_prune():
            self.study.tell(self.trial, state=TrialState.PRUNED)
            raise optuna.TrialPruned(f"{self.metric} {self.last[1]:.1%} after epoch {epoch + 1}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let later trials be compared with this one."""
        if self.last is not None and not trainer.interrupted:
            self.study.tell(self.trial, self.last[1])

    def state_dict(self) -> dict[str, Any]:
        """Keep nothing in checkpoints: a resumed training is a new trial here."""
        return {}
