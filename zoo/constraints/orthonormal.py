"""Keep the factors U and V orthonormal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.constraints._base import BatchedConstraint, Layers, several
from zoo.linalg.gradient_flow import flow_scales
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
from zoo.lowrank.layers import Factorized

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

MOMENTA = ("momentum_buffer", "exp_avg", "momentum")
"""Optimizer state that is a direction, and so must be tangent (SGD; Adam and its kin; SGDP)."""


class Orthonormal(BatchedConstraint):
    """The layers whose U and V have orthonormal columns, which `project_` reaches without changing the weight.

    `project_` is a retraction: X = Q R replaces X by Q (one pass of Cholesky-QR in fp32, the r x r algebra batched over
    layers of one rank; Householder QR after large steps), and R is absorbed in S (of a Tucker-2 convolution
    along the core's first or second axis), so that the product U S V^T does not change. Q is not the nearest
    orthonormal matrix, which is the polar factor; with R in S both stand for the same weight. `in_set` tolerates
    ||X^T X - I||_2 <= 1e-5.

    A layer whose factors are all frozen does not change. If only some are frozen, all are still retracted: R moves
    between them, and the product does not change.

    Args:
        run: see `BatchedConstraint`.

    Examples:
        >>> import torch
        >>> from zoo.constraints import Orthonormal
        >>> from zoo.lowrank.layers import FactorizedLinear
        >>> layer = FactorizedLinear(torch.nn.Linear(30, 20), rank=6)
        >>> with torch.no_grad():
        ...     _ = layer.U.mul_(2)
        >>> weight = layer.weight
        >>> constraint = Orthonormal()
        >>> constraint.in_set(layer)
        False
        >>> constraint.project_(layer)
        >>> constraint.in_set(layer), torch.allclose(layer.weight, weight, atol=1e-5)
        (True, True)
    """

    tangent_: Callable[[Tensor, Tensor], Tensor] = staticmethod(tangent_)
    """Projects a direction onto the tangent space at a factor, in place."""

    def gradient_flow_(self, layers: Layers, optimizer: Optimizer | None = None, *, clipped: bool = False) -> None:
        """Turn the gradients of U and V into the directions of the manifold's gradient flow; keep momenta tangent.

        Gradients of U and V are scaled by r / ||S||_F^2 (r their columns), the scalar form of the (S S^T)^-1 in the
        gradient flow of the rank-r manifold, and gradients and momenta are projected to the tangent space at the
        current point.

        Args:
            layers: those without a gradient stay as they are.
            optimizer: that steps next, for its parameter groups and momenta; None: one without momentum.
            clipped: whether gradients are clipped between this call and the step. The projection of SGD's momenta
                is then not left to the sum of gradient and momentum.
        """
        found = list(several(layers))
        every = [{"params": [x for layer in found for x in (layer.U, layer.V)]}]
        for group in every if optimizer is None else optimizer.param_groups:
            trained = {p for p in group["params"] if p.grad is not None}
            factors = [(x, layer.S) for layer in found for x in (layer.U, layer.V) if x in trained]
            if factors:
                with full_precision(factors[0][0].device):
                    self._flow(factors, defaultdict(dict) if optimizer is None else optimizer.state, group, clipped)

    def _flow(
        self,
        factors: Sequence[tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _ ..."]]],
        states: dict[Any, Any],
        group: dict[str, Any],
        clipped: bool,
    ) -> None:
        """Scale the gradients of factors in one parameter group, and make them and their momenta tangent."""
        xs, cores = [x.detach() for x, _ in factors], [core.detach() for _, core in factors]
        gradients = [x.grad for x, _ in factors if x.grad is not None]
        momenta = [[states[x][name] for name in MOMENTA if states[x].get(name) is not None] for x, _ in factors]
        plain_sgd = not (group.get("nesterov", True) or group.get("dampening") or group.get("maximize"))
        if all(momenta) and plain_sgd and not clipped:
            # SGD adds them before it steps: projecting the sum projects both, unless the trainer clips in between.
            first = [of_factor[0] for of_factor in momenta]
            directions = self.run(_flow_beside, xs, cores, gradients, first, float(group["momentum"]), self.tangent_)
        else:
            directions = self.run(_flow, xs, cores, gradients, self.tangent_)
            for x, of_factor in zip(xs, momenta, strict=True):
                for direction in of_factor:
                    self.tangent_(x, direction)
        if directions is not gradients:
            torch._foreach_copy_(gradients, directions)

    def _trains(self, layer: Factorized) -> bool:
        return not layer.is_frozen

    def _holds(self, layer: Factorized) -> bool:
        return all(bool(orthonormality_error(x.data) <= ORTHONORMAL) for x in (layer.U, layer.V))

    def _project(self, layers: list[Factorized]) -> None:
        factors, cores = [x.data for layer in layers for x in (layer.U, layer.V)], [layer.S.data for layer in layers]
        q, absorbed, near = self.run(_one_pass, factors, cores)
        if not bool(near.all()):
            q, r = retract_each(factors)
            absorbed = _absorbed(r, cores)
        torch._foreach_copy_([*factors, *cores], [*q, *absorbed])


def _one_pass(
    factors: list[Float[Tensor, "_ _"]], cores: list[Float[Tensor, "_ _ ..."]]
) -> tuple[list[Float[Tensor, "_ _"]], list[Float[Tensor, "_ _ ..."]], Bool[Tensor, " factors"]]:
    """Return Q of U, V, U, V, ..., the cores R_u S R_v^T, and for which factors one pass of Cholesky-QR is enough."""
    q, r, near = cholesky_qr(factors)
    return q, _absorbed(r, cores), near


def _absorbed(r: Float[Tensor, "factors r r"], cores: list[Float[Tensor, "_ _ ..."]]) -> list[Float[Tensor, "_ _ ..."]]:
    """Return the cores R_u S R_v^T, or R_u along the first axis and R_v along the second."""
    if cores[0].ndim > 2:
        sides = zip(r[0::2], cores, r[1::2], strict=True)
        return [multiply_modes(u[: len(s), : len(s)], s, v[: s.shape[1], : s.shape[1]]) for u, s, v in sides]
    products = r[0::2] @ padded(cores, 0.0) @ r[1::2].mT
    return [core.contiguous() for core in blocks(products, [len(core) for core in cores])]


def _columns(xs: list[Float[Tensor, "_ _"]]) -> list[int]:
    return [x.shape[1] for x in xs]


def _flow(
    xs: list[Float[Tensor, "_ _"]],
    cores: list[Float[Tensor, "_ _ ..."]],
    gradients: list[Float[Tensor, "_ _"]],
    project_: Callable[[Tensor, Tensor], Tensor],
) -> list[Float[Tensor, "_ _"]]:
    """Make gradients at factors X the manifold's gradient flow, in place: (I - X X^T) G r / ||S||_F^2."""
    for x, gradient, scale in zip(xs, gradients, flow_scales(cores, _columns(xs)), strict=True):
        project_(x, gradient.mul_(scale))
    return gradients


def _flow_beside(
    xs: list[Float[Tensor, "_ _"]],
    cores: list[Float[Tensor, "_ _ ..."]],
    gradients: list[Float[Tensor, "_ _"]],
    momenta: list[Float[Tensor, "_ _"]],
    share: float,
    project_: Callable[[Tensor, Tensor], Tensor],
) -> list[Float[Tensor, "_ _"]]:
    """Make G + share M the flow, in place, then subtract share M, for momenta M that need not be tangent."""
    for gradient, scale in zip(gradients, flow_scales(cores, _columns(xs)), strict=True):
        gradient.mul_(scale)
    torch._foreach_add_(gradients, momenta, alpha=share)
    for x, gradient in zip(xs, gradients, strict=True):
        project_(x, gradient)
    torch._foreach_sub_(gradients, momenta, alpha=share)
    return gradients
