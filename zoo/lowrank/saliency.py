"""How much the loss depends on each singular component of a factorized layer.

All saliencies use a layer in the basis of its singular vectors (see `zoo.lowrank.rank_change.diagonalize_`), where
W is the sum of its components sigma_j u_j v_j^T. A Tucker-2 core has no components; its columns of U and of V are cut
side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from zoo.linalg.mode_products import unfoldings
from zoo.linalg.stiefel import full_precision
from zoo.lowrank.layers import Factorized

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

DAMPING = 1e-3
"""Added to the curvature's diagonal, relative to its mean; it keeps directions without a gradient finite."""

Statistics = dict[str, Tensor]
"""Statistics of a layer's gradients for a saliency: sums over steps."""
Kept = tuple[Tensor, Tensor]
"""Indices of the columns of U and of V that stay."""


class Saliency(ABC):
    """A score per singular component; the smallest are cut."""

    needs_gradients: ClassVar[bool] = True
    """Whether `observe` gathers statistics before a cut."""

    def observe(self, layer: Factorized) -> Statistics:
        """Return statistics of the gradients of one step; nothing by default."""
        return {}

    @abstractmethod
    def columns(self, layer: Factorized, gathered: Statistics) -> tuple[Float[Tensor, " r"], Float[Tensor, " s"]]:
        """Return scores of the columns of U and of V, >= 0; columns of one component add their scores."""

    def scores(self, layer: Factorized, gathered: Statistics) -> Float[Tensor, " r"]:
        """Return the scores of components, comparable between the layers of a network.

        If columns of V are cut on their own (Tucker-2), s / r of them are cut with one of U, both in descending order.
        """
        left, right = self.columns(layer, gathered)
        if layer.paired:
            return left + right
        return torch.sort(left, descending=True)[0] + _spread(torch.sort(right, descending=True)[0], len(left))

    def kept(self, layer: Factorized, gathered: Statistics, rank: int) -> Kept:
        """Return which columns of U and of V stay at a lower rank: the best, ascending."""
        left, right = self.columns(layer, gathered)
        sides = (left + right, left + right) if layer.paired else (left, right)
        u, v = (torch.topk(x, k).indices.sort()[0] for x, k in zip(sides, layer.ranks_at(rank), strict=True))
        return u, v

    def recover_(self, layer: Factorized, gathered: Statistics, kept: Kept) -> None:  # noqa: B027
        """Adjust the kept components to compensate for the cut; by default, do nothing."""


def _spread(values: Float[Tensor, " s"], bins: int) -> Float[Tensor, " bins"]:
    """Return the integrals of a step function over ``bins`` intervals of equal length."""
    reached = torch.cat([values.new_zeros(1), values.cumsum(0)])
    at = torch.arange(bins + 1, device=values.device) * (len(values) / bins)
    below = at.long().clamp(max=len(values) - 1)
    return (reached[below] + (at - below) * values[below]).diff()


class Spectrum(Saliency):
    """Share of the weight's squared Frobenius norm, sigma_j^2 / sum sigma^2: cuts as a truncated SVD does."""

    needs_gradients = False

    def columns(self, layer: Factorized, gathered: Statistics) -> tuple[Float[Tensor, " r"], Float[Tensor, " s"]]:
        """Return each component's share of the squared norm."""
        left, right = layer.energies()
        whole = layer.S.data.square().sum()
        return left / whole, right / whole


class Gradient(Saliency):
    """First-order Taylor score: the mean square of sigma_j dL/dsigma_j, the loss's change without component j.

    Molchanov et al., Importance estimation for neural network pruning, CVPR 2019, equation 8, on components.
    """

    def observe(self, layer: Factorized) -> Statistics:
        """Return the squares of (S^T dL/dS)_jj = <B_j, dL/dB_j>, B = U S; of a core, of its slices on each side."""
        assert layer.S.grad is not None
        change = layer.S.data * layer.S.grad
        if layer.paired:
            left = change.sum(0).square()
            return {"left": left, "right": torch.zeros_like(left)}
        left, right = (matrix.sum(1).square() for matrix in unfoldings(change))
        return {"left": left, "right": right}

    def columns(self, layer: Factorized, gathered: Statistics) -> tuple[Float[Tensor, " r"], Float[Tensor, " s"]]:
        """Return the mean squares of the first-order changes."""
        return gathered["left"] / gathered["steps"], gathered["right"] / gathered["steps"]


class SecondOrder(Saliency):
    """Optimal brain surgeon on the columns of U and V, with recovery by the kept columns.

    The rows of U share the curvature H = E[(dL/dU)^T dL/dU] / n. Setting the columns M to zero then costs least
    if the others move by -U_M ([H^-1]_MM)^-1 [H^-1]_M,:, and a single column j costs ||u_j||^2 / (2 [H^-1]_jj). The
    same holds for V, and a component costs the sum of both.

    Source: PrunedLoRA (arXiv 2510.00192), of which only the released code was available: it has this curvature in the
    factors of a LoRA update. The term of the mean gradient in its objective is left out (classic OBS), since with the
    curvature built from the same gradients it is a Newton step of length 1/||gradient||; the curvature is averaged over
    rows and steps, so that layers of different sizes compare.
    """

    def observe(self, layer: Factorized) -> Statistics:
        """Return the Gram matrices of the gradients of U and V, per row."""
        with full_precision(layer.S.device):
            return {"left": _gram(layer.U), "right": _gram(layer.V)}

    def columns(self, layer: Factorized, gathered: Statistics) -> tuple[Float[Tensor, " r"], Float[Tensor, " s"]]:
        """Return the costs of cutting each column alone."""
        costs = []
        for name, x in (("left", layer.U), ("right", layer.V)):
            inverse = self._inverse(gathered[name], gathered["steps"])
            costs.append((x.data.double().square().sum(0) / (2 * inverse.diagonal())).float())
        return costs[0], costs[1]

    def recover_(self, layer: Factorized, gathered: Statistics, kept: Kept) -> None:
        """Move the kept columns of U and of V, each by half of the step that would compensate for the cut alone."""
        for name, x, stay in (("left", layer.U, kept[0]), ("right", layer.V, kept[1])):
            cut = torch.ones(x.shape[1], dtype=torch.bool, device=stay.device)
            cut[stay] = False
            inverse = self._inverse(gathered[name], gathered["steps"])
            weights = torch.linalg.solve(inverse[cut][:, cut], inverse[cut][:, stay])
            old = x.data.to(stay.device)  # of an average, which may be on another device
            x.data[:, stay.to(x.device)] -= 0.5 * (old[:, cut].double() @ weights).to(x)

    @staticmethod
    def _inverse(total: Float[Tensor, "r r"], steps: Float[Tensor, ""]) -> Float64[Tensor, "r r"]:
        curvature = total.double() / steps
        damping = DAMPING * curvature.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        return torch.linalg.inv(curvature + damping * torch.eye(len(total), dtype=total.dtype, device=total.device))


def _gram(x: nn.Parameter) -> Float[Tensor, "r r"]:
    assert x.grad is not None
    return x.grad.T @ x.grad / len(x)


SALIENCIES: dict[str, Saliency] = {"spectrum": Spectrum(), "gradient": Gradient(), "second_order": SecondOrder()}
