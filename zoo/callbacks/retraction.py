"""Keep the factors U and V orthonormal while they train."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.callbacks._step_hook import StepHook, batches
from zoo.linalg.mode_products import multiply_modes
from zoo.linalg.padded import blocks, padded
from zoo.linalg.stiefel import (
    ORTHONORMAL,
    cholesky_qr,
    full_precision,
    orthonormality_error,
    retract_each,
    tangent_,
)
from zoo.lowrank.layers import flow_scales

MOMENTA = ("momentum_buffer", "exp_avg", "momentum")
"""Optimizer state that is a direction, and so must be tangent (SGD; Adam and its kin; SGDP)."""


class OrthonormalRetraction(StepHook):
    """Retract U and V of every factorized layer to orthonormal columns after each optimizer step.

    After the step, X = Q R replaces X by Q (one pass of Cholesky-QR in fp32, the r x r algebra batched over
    layers of one rank; Householder QR after large steps), and R is absorbed in S (of a Tucker-2 convolution
    along the core's first or second axis), so that the weight does not change. Before the step, the gradients
    of U and V are scaled by r / ||S||_F^2 (r their columns), the scalar form of the (S S^T)^-1 in the gradient
    flow of the rank-r manifold, and gradients and momenta are projected to the tangent space at the present
    point.

    A layer that is frozen as a whole is left as it is; of one that is frozen in part all factors follow, at the same
    weight, since R goes from one to the other.

    Works in any LightningModule that holds `zoo.lowrank.layers.Factorized` layers, under gradient accumulation,
    gradient clipping and mixed precision, with one optimizer or several.
    """

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Turn the gradients of U and V into the directions of the manifold's gradient flow; keep momenta tangent."""
        for group in optimizer.param_groups:
            trained = {p for p in group["params"] if p.grad is not None}
            factors = [(x, layer.S) for layer in self.layers for x in (layer.U, layer.V) if x in trained]
            if factors:
                with full_precision(factors[0][0].device):
                    self._project(factors, optimizer.state, group, bool(trainer.gradient_clip_val))

    def _project(
        self, factors: Sequence[tuple[Tensor, Tensor]], states: dict[Any, Any], group: dict[str, Any], clipped: bool
    ) -> None:
        """Scale the gradients of factors in one parameter group, and make them and their momenta tangent."""
        xs, cores = [x.detach() for x, _ in factors], [core.detach() for _, core in factors]
        gradients = [x.grad for x, _ in factors if x.grad is not None]
        momenta = [[states[x][name] for name in MOMENTA if states[x].get(name) is not None] for x, _ in factors]
        plain_sgd = group.get("nesterov") is False and not group.get("dampening")
        if all(momenta) and plain_sgd and not clipped:
            # SGD adds them before it steps: projecting the sum does for both, unless the trainer clips in between.
            first = [of_factor[0] for of_factor in momenta]
            directions = self.run(_flow_beside, xs, cores, gradients, first, float(group["momentum"]))
        else:
            directions = self.run(_flow, xs, cores, gradients)
            for x, of_factor in zip(xs, momenta, strict=True):
                for direction in of_factor:
                    tangent_(x, direction)
        if directions is not gradients:
            torch._foreach_copy_(gradients, directions)

    def project_(self, optimizer: Optimizer | None) -> None:
        """Retract the layers that train; before training only where a factor is not orthonormal yet."""
        for layers in batches(layer for layer in self.layers if not layer.is_frozen):
            factors = [x.data for layer in layers for x in (layer.U, layer.V)]
            with full_precision(factors[0].device):
                if optimizer is None and all(orthonormality_error(x) <= ORTHONORMAL for x in factors):
                    continue
                cores = [layer.S.data for layer in layers]
                q, absorbed, near = self.run(_one_pass, factors, cores)
                if not bool(near.all()):
                    q, r = retract_each(factors)
                    absorbed = _absorbed(r, cores)
                torch._foreach_copy_([*factors, *cores], [*q, *absorbed])


def _one_pass(factors: list[Tensor], cores: list[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return Q of U, V, U, V, ..., the cores R_u S R_v^T, and for which factors one pass of Cholesky-QR is enough."""
    q, r, near = cholesky_qr(factors)
    return q, _absorbed(r, cores), near


def _absorbed(r: Tensor, cores: list[Tensor]) -> list[Tensor]:
    """Return the cores R_u S R_v^T, or R_u along the first axis and R_v along the second."""
    if cores[0].ndim > 2:
        sides = zip(r[0::2], cores, r[1::2], strict=True)
        return [multiply_modes(u[: len(s), : len(s)], s, v[: s.shape[1], : s.shape[1]]) for u, s, v in sides]
    products = r[0::2] @ padded(cores, 0.0) @ r[1::2].mT
    return [core.contiguous() for core in blocks(products, [len(core) for core in cores])]


def _columns(xs: list[Tensor]) -> list[int]:
    return [x.shape[1] for x in xs]


def _flow(xs: list[Tensor], cores: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Make gradients at factors X the manifold's gradient flow, in place: (I - X X^T) G r / ||S||_F^2."""
    for x, gradient, scale in zip(xs, gradients, flow_scales(cores, _columns(xs)), strict=True):
        tangent_(x, gradient.mul_(scale))
    return gradients


def _flow_beside(
    xs: list[Tensor], cores: list[Tensor], gradients: list[Tensor], momenta: list[Tensor], share: float
) -> list[Tensor]:
    """Do the same with G + share M, and take share M off again, for momenta M that need not be tangent."""
    for gradient, scale in zip(gradients, flow_scales(cores, _columns(xs)), strict=True):
        gradient.mul_(scale)
    torch._foreach_add_(gradients, momenta, alpha=share)
    for x, gradient in zip(xs, gradients, strict=True):
        tangent_(x, gradient)
    torch._foreach_sub_(gradients, momenta, alpha=share)
    return gradients
