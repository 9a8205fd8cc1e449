"""Low-rank updates of a frozen weight that start wide and lose components while they train.

PrunedLoRA (arXiv 2510.00192), with the term of the mean gradient, and with a recovery of the shape of the factors; the
paper's text was not available, and the recovery of its released code fits square factors alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int

DAMPING = 1e-3
"""Added to the curvature's diagonal, relative to its mean."""


class PrunableFactor(nn.Module):
    """One factor X of an update, with what its gradients G_t say of its columns.

    The loss near X is taken as <G, D> + tr(D H D^T) / 2 with the mean gradient G and the curvature H = mean G_t^T G_t.

    Args:
        x: (n, k), the starting value.
    """

    kept: Tensor
    gram: Tensor
    total: Tensor
    steps: Tensor

    def __init__(self, x: Float[Tensor, "n k"]) -> None:
        super().__init__()
        k = x.shape[1]
        self.x = nn.Parameter(x)
        self.register_buffer("kept", torch.ones(k, dtype=torch.bool, device=x.device))
        self.register_buffer("gram", x.new_zeros(k, k))
        self.register_buffer("total", torch.zeros_like(x))
        self.register_buffer("steps", x.new_zeros(()))

    def columns(self) -> Float[Tensor, "n k"]:
        """Return X with zeros in the place of columns that were cut."""
        return self.x * self.kept

    @torch.no_grad()
    def gather_(self) -> None:
        """Add the gradient of a step to the statistics."""
        gradient = self.x.grad
        if gradient is not None:
            self.gram += gradient.T @ gradient
            self.total += gradient
            self.steps += 1

    def costs(self, columns: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
        """Return what setting each column alone to zero costs: ||x_j - p_j||^2 / (2 [H^-1]_jj) with P = G H^-1."""
        inverse, newton = self._newton(columns)
        distance = self.x[:, columns].double() - newton
        return distance.square().sum(0) / (2 * inverse.diagonal())

    @torch.no_grad()
    def cut_(self, columns: Int[Tensor, " k"], drop: Int[Tensor, " c"]) -> None:
        """Cut columns, and move the others by half of the step that compensates for it, at most by what is cut.

        The step is -P - (X_c - P_c) ([H^-1]_cc)^-1 [H^-1]_c; the other half is the other factor's.

        Args:
            columns: that are left, as indices.
            drop: which of them are cut, as indices of ``columns``.
        """
        inverse, newton = self._newton(columns)
        x = self.x[:, columns].double()
        coefficients = torch.linalg.solve(inverse[drop][:, drop], inverse[drop])
        step = -newton - (x[:, drop] - newton[:, drop]) @ coefficients
        step[:, drop] = 0
        longest = x[:, drop].norm()
        step *= 0.5 * (longest / step.norm().clamp_min(torch.finfo(step.dtype).tiny)).clamp(max=1)
        self.x[:, columns] += step.to(self.x)
        self.kept[columns[drop]] = False
        for statistic in (self.gram, self.total, self.steps):
            statistic.zero_()

    def _newton(self, columns: Int[Tensor, " k"]) -> tuple[Float64[Tensor, "k k"], Float64[Tensor, "n k"]]:
        """Return H^-1 and P of the columns that are left."""
        steps = self.steps.double().clamp_min(1)
        curvature = self.gram[columns][:, columns].double() / steps
        damping = DAMPING * curvature.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        inverse = torch.linalg.inv(curvature + damping * torch.eye(len(columns), device=damping.device).double())
        return inverse, self.total[:, columns].double() / steps @ inverse


class PrunedUpdate(nn.Module):
    """Adds B A^T to a frozen weight, (n, ...); at first B = 0 and A is Gaussian.

    Args:
        weight: to be updated.
        width: components at the start, at most the weight's full rank.
        rank: components at the end, at most ``width``.
    """

    def __init__(self, weight: Tensor, width: int, rank: int) -> None:
        super().__init__()
        n, m = weight.flatten(1).shape
        self.width = min(width, n, m)
        self.rank = min(rank, self.width)
        self.B = PrunableFactor(weight.new_zeros(n, self.width))
        self.A = PrunableFactor(torch.randn(m, self.width).to(weight) / m**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight."""
        return weight + (self.B.columns() @ self.A.columns().T).view_as(weight)

    @property
    def components(self) -> int:
        """How many components are left."""
        return int(self.B.kept.sum())

    def gather_(self) -> None:
        """Add the gradients of a step to the statistics."""
        self.B.gather_()
        self.A.gather_()

    def prune_(self, components: int) -> None:
        """Cut all but some components: those whose loss costs least in both factors together."""
        columns = self.B.kept.nonzero().flatten()
        surplus = len(columns) - components
        if surplus > 0:
            drop = (self.B.costs(columns) + self.A.costs(columns)).topk(surplus, largest=False).indices
            self.B.cut_(columns, drop)
            self.A.cut_(columns, drop)
