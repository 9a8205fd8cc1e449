"""Validate, checkpoint and finish with an average of the weights, on the same constraints as the weights."""

from collections.abc import Sequence
from functools import partial

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from zoo.callbacks._step_hook import StepHook
from zoo.callbacks._trainer_callbacks import peers


class ExponentialAverage(WeightAveraging):
    """Keep an exponential moving average of the weights and buffers after each step, and end with it.

    The average of orthonormal factors is not orthonormal. Whenever the average replaces the weights (validation,
    checkpoints of the best epoch, the end), it is therefore projected onto the trainer's constraints, as weights are
    after a step: retraction keeps the product U S V^T, then the spectrum is clamped.

    Args:
        decay: share of the average that stays at each step, in (0, 1); in the first steps it is smaller,
            (1 + t) / (10 + t), so that short runs forget where they started.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), got {decay}")
        super().__init__(use_buffers=True, multi_avg_fn=partial(_average, decay=decay))

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the weights by the average; Lightning puts them back after the validation."""
        super().on_validation_epoch_start(trainer, pl_module)
        _constrain(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End with the average."""
        super().on_train_end(trainer, pl_module)
        _constrain(trainer)


@torch.no_grad()
def _average(average: Sequence[Tensor], present: Sequence[Tensor], averaged: Tensor | int, decay: float) -> None:
    """Move the average towards the current values, in place; it holds ``averaged`` steps already."""
    decay = min(decay, (1 + int(averaged)) / (10 + int(averaged)))
    pairs = list(zip(average, present, strict=True))
    floats = [(mean, value.to(mean)) for mean, value in pairs if mean.is_floating_point()]
    if floats:
        means, values = zip(*floats, strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)  # few kernel launches on a GPU
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)


def _constrain(trainer: pl.Trainer) -> None:
    for constraint in peers(trainer, StepHook):
        constraint.project_(None)
