"""Keep the factors U and V orthonormal while they train."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook
from zoo.layers import Factorized
from zoo.linalg.stiefel import ORTHONORMAL, full_precision, gram_error, retract, tangent

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

    Before the step, the gradients of U and V are projected to the tangent space and scaled by
    r / ||S||_F^2, the scalar form of the (S S^T)^-1 in the gradient flow of the rank-r manifold. After it,
    X = Q R replaces X by Q (Cholesky-QR in fp32, batched over layers of one shape, Householder QR where
    that is not orthonormal to 1e-5), R is absorbed in S so that the weight U S V^T does not change, and
    momentum is projected onto the new tangent space.

    Works in any LightningModule that holds `zoo.layers.Factorized` layers, under gradient accumulation and
    mixed precision, with one optimizer or several.

    Attributes:
        error: largest ||X^T X - I||_F over all factors after the last step; it bounds the spectral norm.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error = 0.0

    def _batches(self, factors: list[_Factor]) -> Iterator[tuple[list[_Factor], Tensor]]:
        """Yield the factors of each shape and device with their stacked values (B, rows, r)."""
        groups: dict[tuple[torch.Size, torch.device], list[_Factor]] = defaultdict(list)
        for factor in factors:
            groups[factor.parameter.shape, factor.parameter.device].append(factor)
        for (_, device), group in groups.items():
            # Batching saves launches on an accelerator; on a CPU it would only add copies.
            for batch in [[f] for f in group] if device.type == "cpu" else [group]:
                yield batch, torch.stack([f.parameter.data for f in batch])

    @property
    def factors(self) -> list[_Factor]:
        """U and V of every layer."""
        return [_Factor(layer, left) for layer in self.layers for left in (True, False)]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Turn the gradients of U and V into the directions of the manifold's gradient flow."""
        own = {id(p) for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        for factors, x in self._batches([f for f in self.factors if id(f.parameter) in own]):
            with full_precision(x.device):
                grads = [f.parameter.grad for f in factors if f.parameter.grad is not None]
                energy = torch.stack([f.layer.S.square().sum() / f.layer.rank for f in factors])
                scaled = tangent(x, torch.stack(grads)) / energy.clamp_min(TINY)[:, None, None]
                torch._foreach_copy_(grads, list(scaled))

    def restore(self, optimizer: Optimizer | None) -> None:
        """Retract every factor; before training only those that are not orthonormal yet."""
        errors = []
        for factors, x in self._batches(self.factors):
            with full_precision(x.device):
                if optimizer is None and bool((gram_error(x) <= ORTHONORMAL).all()):
                    continue
                q, r, error = retract(x)
                torch._foreach_copy_([f.parameter.data for f in factors], list(q))
                for factor, triangle in zip(factors, r, strict=True):
                    s = factor.layer.S.data
                    s.copy_(triangle @ s if factor.left else s @ triangle.T)
                if optimizer is not None:
                    self._transport(optimizer, factors, q)
            errors.append(error.max().cpu())
        self.error = max(map(float, errors), default=0.0)

    def _transport(self, optimizer: Optimizer, factors: list[_Factor], q: Tensor) -> None:
        """Project the optimizer's momenta onto the tangent space at the new point."""
        for key in MOMENTA:
            for factor, point in zip(factors, q, strict=True):
                momentum = optimizer.state[factor.parameter].get(key)
                if momentum is not None:
                    momentum.copy_(tangent(point, momentum))
