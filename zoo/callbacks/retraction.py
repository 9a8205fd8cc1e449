"""Keep the factors U and V orthonormal while they train."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook
from zoo.layers import Factorized
from zoo.linalg.stiefel import ORTHONORMAL, full_precision, orthonormality_error, retract, tangent

MOMENTA = ("momentum_buffer", "exp_avg")
"""Optimizer state that is a direction, and so must be tangent (SGD; Adam and its kin)."""
TINY = 1e-12
"""Keeps the scale of the step finite where S vanishes."""


@dataclass(frozen=True)
class _Factor:
    """One of a layer's two factors, and which side of S its R factor goes to."""

    layer: Factorized
    left: bool

    @property
    def parameter(self) -> nn.Parameter:
        return self.layer.U if self.left else self.layer.V


class OrthonormalRetraction(StepHook):
    """Retract U and V of every factorized layer to orthonormal columns after each optimizer step.

    After the step, X = Q R replaces X by Q (one pass of Cholesky-QR in fp32, batched over factors of one
    shape on an accelerator; Householder QR after large steps), and R is absorbed in S, so that the weight
    U S V^T does not change. Before the step, the gradients of U and V are scaled by r / ||S||_F^2, the
    scalar form of the (S S^T)^-1 in the gradient flow of the rank-r manifold, and gradients and momenta
    are projected to the tangent space at the present point.

    Works in any LightningModule that holds `zoo.layers.Factorized` layers, under gradient accumulation and
    mixed precision, with one optimizer or several.
    """

    @property
    def factors(self) -> list[_Factor]:
        """U and V of every layer."""
        return [_Factor(layer, left) for layer in self.layers for left in (True, False)]

    @staticmethod
    def _batches(factors: list[_Factor]) -> Iterator[tuple[list[_Factor], Tensor]]:
        """Yield the factors of each shape and device with their values (B, rows, r)."""
        groups: dict[tuple[torch.Size, torch.device], list[_Factor]] = defaultdict(list)
        for factor in factors:
            groups[factor.parameter.shape, factor.parameter.device].append(factor)
        for (_, device), group in groups.items():
            if device.type == "cpu":  # batching saves launches on an accelerator, and only adds copies here
                yield from (([f], f.parameter.data.unsqueeze(0)) for f in group)
            else:
                yield group, torch.stack([f.parameter.data for f in group])

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Turn the gradients of U and V into the directions of the manifold's gradient flow; keep momenta tangent."""
        own = {p: group for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        clipped = bool(trainer.gradient_clip_val)
        for factors, x in self._batches([f for f in self.factors if f.parameter in own]):
            with full_precision(x.device):
                for factor, point in zip(factors, x, strict=True):
                    self._make_tangent(factor, point, optimizer, own[factor.parameter], clipped)

    @staticmethod
    def _make_tangent(factor: _Factor, x: Tensor, optimizer: Optimizer, group: dict[str, Any], clipped: bool) -> None:
        grad, s = factor.parameter.grad, factor.layer.S
        assert grad is not None
        grad.div_((s.square().sum() / s.shape[0]).clamp_min(TINY))
        momenta = [m for m in map(optimizer.state[factor.parameter].get, MOMENTA) if m is not None]
        if momenta and "momentum" in group and not group["nesterov"] and not clipped:
            # SGD adds them before it steps: projecting the sum does for both. tangent(g + m) - m + m is tangent,
            # unless the trainer clips the gradient in between.
            momentum = momenta[0] * group["momentum"]
            grad.copy_(tangent(x, grad.add_(momentum)).sub_(momentum))
            return
        for direction in (grad, *momenta):
            direction.copy_(tangent(x, direction))

    def restore(self, optimizer: Optimizer | None) -> None:
        """Retract every factor; before training only those that are not orthonormal yet."""
        for factors, x in self._batches(self.factors):
            with full_precision(x.device):
                if optimizer is None and bool((orthonormality_error(x) <= ORTHONORMAL).all()):
                    continue
                for factor, q, r in zip(factors, *retract(x), strict=True):
                    s = factor.layer.S.data
                    s.copy_(r @ s if factor.left else s @ r.T)
                    factor.parameter.data.copy_(q)
