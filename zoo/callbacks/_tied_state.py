"""State that follows the shapes of parameters during a training: averages, constraints, DDP's reducer, graphs."""

import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from zoo.callbacks._step_hook import StepHook
from zoo.callbacks._trainer_callbacks import peers
from zoo.lowrank.layers import Factorized


def averages_of(trainer: pl.Trainer, name: str) -> list[Factorized]:
    """Return a layer's copies in the callbacks that average weights."""
    return [layer for layer in submodule_averages(trainer, name) if isinstance(layer, Factorized)]


def submodule_averages(trainer: pl.Trainer, name: str) -> list[nn.Module]:
    """Return a submodule's copies in the callbacks that average weights."""
    models = [averaging._average_model for averaging in peers(trainer, WeightAveraging)]
    return [model.module.get_submodule(name) for model in models if model is not None]


def project_constraints(trainer: pl.Trainer) -> None:
    """Project the factorized layers onto the constraints of the training."""
    for constraint in peers(trainer, StepHook):
        constraint.project_(trainer.optimizers[0])


def renew(trainer: pl.Trainer) -> None:
    """Make DDP and graphs read the parameters again after shapes have changed or parameters were frozen."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()
    captured = getattr(trainer.lightning_module, "captured", None)
    if captured is not None:
        captured.forget()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
