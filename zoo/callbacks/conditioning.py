"""Log the conditioning of the factorized layers during training."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from zoo.linalg.stiefel import orthonormality_error
from zoo.lowrank.layers import factorized_layers


def log_interval(trainer: pl.Trainer) -> int:
    """Return the number of steps between two rows of the log."""
    return int(trainer.log_every_n_steps)  # type: ignore[attr-defined]


class ConditioningMonitor(Callback):
    """Log the conditioning and orthonormality of the factorized layers at Lightning's logging interval.

    ``condition`` is the largest condition number of a weight U S V^T over all layers, measured from the
    weights themselves; ``orthonormality`` the largest ||U^T U - I||_2 or ||V^T V - I||_2.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Measure and log."""
        if trainer.fit_loop.epoch_loop._should_accumulate() or trainer.global_step % log_interval(trainer):
            return
        layers = [layer for _, layer in factorized_layers(pl_module)]
        if not layers:
            return
        pl_module.log("condition", max(layer.condition_number() for layer in layers), prog_bar=True)
        pl_module.log("orthonormality", max(float(_error(layer.U, layer.V)) for layer in layers))


def _error(u: Tensor, v: Tensor) -> Tensor:
    return max(orthonormality_error(u.detach().float()), orthonormality_error(v.detach().float()))
