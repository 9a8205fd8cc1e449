"""Keep the factors U and V orthonormal while they train."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook, batches
from zoo.layers import flow_scales
from zoo.linalg.padded import blocks, padded
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
        groups = {p: group for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        layers = [layer for layer in self.layers if layer.U in groups or layer.V in groups]
        if not layers:
            return
        with full_precision(layers[0].S.device):
            scales = dict(zip(layers, flow_scales(layers), strict=True))
            factors = [(x, scales[layer]) for layer in layers for x in (layer.U, layer.V) if x in groups]
            for x, scale in factors:
                assert x.grad is not None
                x.grad.mul_(scale)
            for group in optimizer.param_groups:
                of_group = [x for x, _ in factors if groups[x] is group]
                _make_tangent(of_group, optimizer.state, group, bool(trainer.gradient_clip_val))

    def restore(self, optimizer: Optimizer | None) -> None:
        """Retract every factor; before training only where one is not orthonormal yet."""
        for layers in batches(self.layers):
            factors = [x.data for layer in layers for x in (layer.U, layer.V)]
            with full_precision(factors[0].device):
                if optimizer is None and all(orthonormality_error(x) <= ORTHONORMAL for x in factors):
                    continue
                q, r = retract_each(factors)
                cores = [layer.S.data for layer in layers]
                absorbed = blocks(r[0::2] @ padded(cores, 0.0) @ r[1::2].mT, [layer.rank for layer in layers])
                torch._foreach_copy_([*factors, *cores], [*q, *absorbed])


def _make_tangent(xs: list[nn.Parameter], states: dict[Any, Any], group: dict[str, Any], clipped: bool) -> None:
    """Project the gradients and momenta of factors in one parameter group to the tangent spaces at the factors."""
    gradients = [x.grad for x in xs if x.grad is not None]
    momenta = [[states[x][name] for name in MOMENTA if states[x].get(name) is not None] for x in xs]
    if xs and all(momenta) and "momentum" in group and not group["nesterov"] and not clipped:
        # SGD adds them before it steps: projecting the sum does for both. tangent(g + m) - m + m is tangent,
        # unless the trainer clips the gradient in between.
        first = [of_factor[0] for of_factor in momenta]
        torch._foreach_add_(gradients, first, alpha=group["momentum"])
        for x, gradient in zip(xs, gradients, strict=True):
            tangent_(x, gradient)
        torch._foreach_sub_(gradients, first, alpha=group["momentum"])
        return
    for x, gradient, of_factor in zip(xs, gradients, momenta, strict=True):
        for direction in (gradient, *of_factor):
            tangent_(x, direction)
