"""A bound on how far the margin falls when every weight moves, as a penalty.

Tsai, Hsu, Yu, Chen: Formalizing generalization and adversarial robustness of neural networks to weight
perturbations, NeurIPS 2021, arXiv 2103.02200. Only the paper's abstract and a third party's code were available. They
show that the loss is the cross-entropy plus the worst pairwise margin bound plus the layers' largest row and column
sums. The bound below is this project's derivation for the paper's setting, and so is the logarithm.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.regularizers._activation_bound import Movements
from zoo.regularizers._base import Regularizer
from zoo.runtime.eval_mode import evaluating


@dataclass(frozen=True)
class WeightRobust(Regularizer):
    """Weight-perturbation bound: how far the margin may fall when each layer's weights move by up to eps, in log form.

    The penalty is ``weight`` * mean log max_j eta(y, j) + ``norms`` * sum over layers of (largest row sum + largest
    column sum of |W|), with eta of `margin_bound`. The logarithm keeps deep networks, whose bound is a product over
    layers, from drowning the loss. It is taken in the deployed form of BatchNorm (eval mode, folded scales), on the
    first ``images`` of each batch.
    """

    eps: float = 0.01
    """Largest movement of each weight."""
    weight: float = 0.01
    """Weight of the bound's logarithm."""
    norms: float = 1e-5
    """Weight of the row and column sums."""
    images: int = 32
    """Images per batch at which the bound is taken."""

    def __post_init__(self) -> None:
        for name in ("eps", "images"):
            if not getattr(self, name) > 0:
                raise UserError(f"regularize.{name} must be positive, got {getattr(self, name)}")
        for name in ("weight", "norms"):
            if not getattr(self, name) >= 0:
                raise UserError(f"regularize.{name} must be >= 0, got {getattr(self, name)}")

    def penalty(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the penalty, the mean logarithm of the bound and the sum of the norms."""
        few = slice(self.images)
        bound, norms = margin_bound(model, images[few], labels[few], self.eps)
        bound = bound.mean()
        return {"penalty": self.weight * bound + self.norms * norms, "margin_bound": bound, "weight_norms": norms}


def margin_bound(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Bound how far any margin f_y - f_j of an image can move when one layer's weights move by up to eps.

    It is the sum over the layers of the bounds for each layer moving alone: with b the movement of a layer's input,
    a layer adds eps ||input||_1 to |W| b, and the last one bounds |W_y - W_j| b + 2 eps ||input||_1.
    To first order in eps it bounds all layers moving at once.

    Args:
        model: used in eval mode, and returned to its mode.
        images: (B, C, H, W) in [0, 1].
        labels: (B,).
        eps: largest movement of each entry of a weight matrix, its BatchNorm folded in.

    Returns:
        The logarithm of the largest bound over the other classes, (B,), and the sum over layers of the largest row
        and column sums of |W|.

    Raises:
        UserError: the model has an operation without a rule.
    """
    with evaluating(model), torch.autocast(images.device.type, enabled=False), Movements(eps) as movements:
        logits = model(images)
    return movements.worst_margin(logits, labels), movements.norms
