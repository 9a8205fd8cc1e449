"""Run a callback's constraint after each real optimizer step."""

import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from zoo.callbacks._trainer_callbacks import peers
from zoo.constraints import BatchedConstraint
from zoo.errors import UserError
from zoo.lowrank.layers import Factorized, factorized_layers
from zoo.runtime.cuda_graph import Replays, called
from zoo.runtime.optimizer_state import refuse_copies


class StepHook(Callback):
    """Projects the factorized layers onto a constraint after every optimizer step, and at the end.

    Callbacks that replace the weights by an average (Lightning's `WeightAveraging` and `StochasticWeightAveraging`, at
    any place in the list) leave weights off the constraint. They are projected before such weights are validated or
    trained, and once more when the fit ends, whatever replaced them.

    Lightning has no hook after the step, so this registers on the optimizer itself: it runs once per real
    step under gradient accumulation, and not at all when a gradient scaler skips one.

    Args:
        constraint: onto which layers are projected.
    """

    def __init__(self, constraint: BatchedConstraint) -> None:
        self.constraint = constraint
        self.layers: list[Factorized] = []
        self._handles: list[RemovableHandle] = []

    def project_(self, optimizer: Optimizer | None) -> None:
        """Project the trainable ``self.layers`` onto the constraint; without an optimizer there was no step."""
        if optimizer is None:
            self.constraint.project_if_outside_(self.layers)
        else:
            self.constraint.project_(self.layers)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the factorized layers, project them onto the constraint, and hook the optimizers."""
        self.layers = [layer for _, layer in factorized_layers(pl_module)]
        if not self.layers:
            warnings.warn(
                f"{type(self).__name__} found no factorized layer and does nothing: factorize the network first, by "
                "zoo.compress or zoo.lowrank.factorize.factorize",
                stacklevel=2,
            )
        self.constraint.run = Replays() if getattr(pl_module, "captured", None) is not None else called
        self.project_(None)

        factors = [p for layer in self.layers for p in (layer.U, layer.S, layer.V)]

        def after_step(optimizer: Optimizer, args: object, kwargs: object) -> None:
            refuse_copies(optimizer, factors)
            self._restore(trainer, pl_module, optimizer)

        self._handles = [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]

    def _restore(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer | None) -> None:
        try:
            self.project_(optimizer)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # of infinite or undefined entries
            raise UserError(
                f"training diverged: step {trainer.global_step} made {_largest_layer(pl_module)} overflow; "
                "lower the learning rate"
            ) from None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Project weights that were replaced at the start of the epoch."""
        if batch_idx == 0 and replaces_weights(trainer):
            self._restore(trainer, pl_module, None)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Project weights that were replaced for the validation."""
        if batch_idx == 0 and dataloader_idx == 0 and replaces_weights(trainer):
            self._restore(trainer, pl_module, None)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Project weights that were replaced at the end of the training."""
        self._restore(trainer, pl_module, None)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the hooks from the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def replaces_weights(trainer: pl.Trainer) -> bool:
    """Return whether one of Lightning's callbacks replaces the weights by averages."""
    return bool(peers(trainer, WeightAveraging) or peers(trainer, StochasticWeightAveraging))


def _largest_layer(module: nn.Module) -> str:
    """Return the name of the factorized layer with the largest entry; NaN counts as infinite."""
    largest = {
        name: max(factor.detach().abs().nan_to_num(torch.inf).max().item() for factor in layer.parameters())
        for name, layer in factorized_layers(module)
    }
    return max(largest, key=largest.__getitem__)
