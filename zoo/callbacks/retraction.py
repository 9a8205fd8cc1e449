"""Keep the factors U and V orthonormal while they train."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook
from zoo.layers import by_rank
from zoo.linalg.stiefel import ORTHONORMAL, full_precision, orthonormality_error, retract_each, tangent_

MOMENTA = ("momentum_buffer", "exp_avg")
"""Optimizer state that is a direction, and so must be tangent (SGD; Adam and its kin)."""


class OrthonormalRetraction(StepHook):
    """Retract U and V of every factorized layer to orthonormal columns after each optimizer step.

    After the step, X = Q R replaces X by Q (one pass of Cholesky-QR in fp32, the r x r algebra batched over
    layers of one rank; Householder QR after large steps), and R is absorbed in S, so that the weight
    U S V^T does not change. Before the step, the gradients of U and V are scaled by r / ||S||_F^2, the
    scalar form of the (S S^T)^-1 in the gradient flow of the rank-r manifold, and gradients and momenta
    are projected to the tangent space at the present point.

    Works in any LightningModule that holds `zoo.layers.Factorized` layers, under gradient accumulation,
    gradient clipping and mixed precision, with one optimizer or several.
    """

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Turn the gradients of U and V into the directions of the manifold's gradient flow; keep momenta tangent."""
        own = {p: group for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        for layer in self.layers:
            with full_precision(layer.S.device):
                scale = layer.flow_scale()
                for x in (layer.U, layer.V):
                    if x in own:
                        assert x.grad is not None
                        x.grad.mul_(scale)
                        self._make_tangent(x, x.grad, optimizer.state[x], own[x], bool(trainer.gradient_clip_val))

    @staticmethod
    def _make_tangent(
        x: nn.Parameter, grad: Tensor, state: dict[str, Any], group: dict[str, Any], clipped: bool
    ) -> None:
        momenta = [state[name] for name in MOMENTA if state.get(name) is not None]
        if momenta and "momentum" in group and not group["nesterov"] and not clipped:
            # SGD adds them before it steps: projecting the sum does for both. tangent(g + m) - m + m is tangent,
            # unless the trainer clips the gradient in between.
            grad.add_(momenta[0], alpha=group["momentum"])
            tangent_(x, grad).sub_(momenta[0], alpha=group["momentum"])
            return
        for direction in (grad, *momenta):
            tangent_(x, direction)

    def restore(self, optimizer: Optimizer | None) -> None:
        """Retract every factor; before training only where one is not orthonormal yet."""
        for layers in by_rank(self.layers):
            factors = [x.data for layer in layers for x in (layer.U, layer.V)]
            with full_precision(factors[0].device):
                if optimizer is None and all(orthonormality_error(x) <= ORTHONORMAL for x in factors):
                    continue
                q, r = retract_each(factors)
                cores = [layer.S.data for layer in layers]
                absorbed = r[0::2] @ torch.stack(cores) @ r[1::2].mT
                torch._foreach_copy_([*factors, *cores], [*q, *absorbed])
