"""How much the loss depends on each singular component of a factorized layer.

All of them look at a layer in the basis of its singular vectors (see `zoo.rank_change.diagonalize_`), where
W is the sum of its components sigma_j u_j v_j^T.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.layers import Factorized
from zoo.linalg.stiefel import full_precision

DAMPING = 1e-3
"""Added to the curvature's diagonal, relative to its mean: keeps directions without a gradient finite."""

Statistics = dict[str, Tensor]
"""What a saliency gathers of a layer's gradients: sums over steps."""


class Saliency(ABC):
    """A score per singular component; the smallest are cut."""

    needs_gradients: ClassVar[bool] = True
    """Whether `observe` has something to gather before a cut."""

    def observe(self, layer: Factorized) -> Statistics:
        """Return what to gather from the gradients of one step; nothing by default."""
        return {}

    @abstractmethod
    def scores(self, layer: Factorized, gathered: Statistics) -> Tensor:
        """Return the scores, shape (r,), >= 0, comparable between the layers of a network."""

    def recover_(self, layer: Factorized, gathered: Statistics, kept: Tensor) -> None:  # noqa: B027
        """Move what is kept (indices) so as to make up for what is cut; not at all by default."""


class Spectrum(Saliency):
    """Share of the weight's squared Frobenius norm, sigma_j^2 / sum sigma^2: cuts as a truncated SVD does."""

    needs_gradients = False

    def scores(self, layer: Factorized, gathered: Statistics) -> Tensor:
        """Return the shares."""
        return layer.energies() / layer.S.data.square().sum()


class Gradient(Saliency):
    """First-order Taylor score: the mean square of sigma_j dL/dsigma_j, the loss's change if component j goes.

    Molchanov et al., Importance estimation for neural network pruning, CVPR 2019, equation 8, on components.
    """

    def observe(self, layer: Factorized) -> Statistics:
        """Return the squares of (S^T dL/dS)_jj = <B_j, dL/dB_j>, B = U S."""
        assert layer.S.grad is not None
        return {"taylor": (layer.S.data * layer.S.grad).sum(0).square()}

    def scores(self, layer: Factorized, gathered: Statistics) -> Tensor:
        """Return the means."""
        return gathered["taylor"] / gathered["steps"]


class SecondOrder(Saliency):
    """Optimal brain surgeon on the columns of U and V, with the recovery of what is kept.

    The rows of U share the curvature H = E[(dL/dU)^T dL/dU] / n. Setting the columns M to zero then costs least
    if the others move by -U_M ([H^-1]_MM)^-1 [H^-1]_M,:, and a single column j costs ||u_j||^2 / (2 [H^-1]_jj); V
    likewise, and a component costs the sum of both.

    Source: PrunedLoRA (arXiv 2510.00192), whose body was not at hand: its released code has this curvature in the
    factors of a LoRA update. The term of the mean gradient in its objective is left out (classic OBS), since with
    the curvature built from the same gradients it is a Newton step of length 1/||gradient||; the curvature is
    averaged over rows and steps, so that layers of different sizes compare.
    """

    def observe(self, layer: Factorized) -> Statistics:
        """Return the Gram matrices of the gradients of U and V, per row."""
        with full_precision(layer.S.device):
            return {"left": _gram(layer.U), "right": _gram(layer.V)}

    def scores(self, layer: Factorized, gathered: Statistics) -> Tensor:
        """Return the costs of cutting each component alone."""
        total = torch.zeros(layer.rank, dtype=torch.float64, device=layer.S.device)
        for name, x in (("left", layer.U), ("right", layer.V)):
            inverse = self._inverse(gathered[name], gathered["steps"])
            total += x.data.double().square().sum(0) / (2 * inverse.diagonal())
        return total.float()

    def recover_(self, layer: Factorized, gathered: Statistics, kept: Tensor) -> None:
        """Move the kept columns of U and of V, each by half of what would make up for the cut alone."""
        cut = torch.ones(layer.rank, dtype=torch.bool, device=kept.device)
        cut[kept] = False
        for name, x in (("left", layer.U), ("right", layer.V)):
            inverse = self._inverse(gathered[name], gathered["steps"])
            weights = torch.linalg.solve(inverse[cut][:, cut], inverse[cut][:, kept])
            x.data[:, kept] -= 0.5 * (x.data[:, cut].double() @ weights).to(x)

    @staticmethod
    def _inverse(total: Tensor, steps: Tensor) -> Tensor:
        curvature = total.double() / steps
        damping = DAMPING * curvature.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        return torch.linalg.inv(curvature + damping * torch.eye(len(total), dtype=total.dtype, device=total.device))


def _gram(x: nn.Parameter) -> Tensor:
    assert x.grad is not None
    return x.grad.T @ x.grad / len(x)


SALIENCIES: dict[str, Saliency] = {"spectrum": Spectrum(), "gradient": Gradient(), "second_order": SecondOrder()}
