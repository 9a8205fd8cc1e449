"""Keep the factors U and V orthonormal while a LightningModule trains."""

import lightning.pytorch as pl
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook
from zoo.constraints import Orthonormal


class OrthonormalRetraction(StepHook):
    """Retract U and V of every factorized layer to orthonormal columns after each optimizer step.

    The mathematics is that of `zoo.constraints.Orthonormal`: after the step, R of X = Q R is absorbed in S, so that the
    weight does not change; before the step, gradients of U and V become directions of the gradient flow of the rank-r
    manifold, and momenta tangent.

    A layer whose factors are all frozen does not change. If only some are frozen, all are still retracted: R moves
    between them, and the product does not change.

    Works in any LightningModule that holds `zoo.lowrank.layers.Factorized` layers, under gradient accumulation,
    gradient clipping and mixed precision, with one optimizer or several.

    Args:
        constraint: another form of the constraint; None: `Orthonormal`.
    """

    def __init__(self, constraint: Orthonormal | None = None) -> None:
        super().__init__(constraint or Orthonormal())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Turn the gradients of U and V into the directions of the manifold's gradient flow; keep momenta tangent."""
        self.constraint.gradient_flow_(self.layers, optimizer, clipped=bool(trainer.gradient_clip_val))
