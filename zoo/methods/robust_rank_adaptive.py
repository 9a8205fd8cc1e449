"""RobustDLRT: dynamical low-rank training with a penalty on the spread of the singular values.

Schotthoefer, Yang, Schnake: Dynamical low-rank compression of neural networks with robustness under adversarial
attacks, NeurIPS 2025, arXiv 2505.08022.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.lowrank.layers import factorized_layers
from zoo.methods._base import Objective, cross_entropy
from zoo.methods.rank_adaptive import RankAdaptive

TINY = 1e-12
"""Added under the root of the penalty, whose gradient has no limit where all singular values are equal."""


def spread(s: Tensor) -> Tensor:
    """Return R(S) = ||S S^T - alpha^2 I||_F with alpha^2 = ||S||_F^2 / r; 0 if all singular values are equal.

    R^2 / r is the variance of the squared singular values, and kappa(S) <= exp(R / (sqrt(2) sigma_r^2)). For the core
    of a Tucker form it is taken of the unfolding r x (s k k), as in the paper.

    Args:
        s: shape (r, r) or (r, s, ...).
    """
    rows = s.flatten(1)
    gram = rows @ rows.T
    centered = gram - gram.diagonal().mean() * torch.eye(len(s), dtype=s.dtype, device=s.device)
    return (centered.square().sum() + TINY).sqrt()


@dataclass(frozen=True)
class RobustRankAdaptive(RankAdaptive):
    """RobustDLRT: dynamical low-rank training with the penalty beta * sum ||S^T S - alpha^2 I||_F.

    The penalty is a soft form of CondLR's clamp: it pulls singular values together while the basis adapts.
    """

    beta: float = 0.1
    """Weight of the penalty; 0.05 to 0.2 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta >= 0:
            raise UserError(f"beta {self.beta} is invalid: the penalty's weight must be >= 0")

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, objective: Objective = cross_entropy
    ) -> dict[str, Tensor]:
        """Return the objective plus the penalty."""
        result = super().loss(model, images, labels, objective)
        with torch.autocast(images.device.type, enabled=False):
            penalty = sum((spread(layer.S) for _, layer in factorized_layers(model)), images.new_zeros(()))
        return result | {"loss": result["loss"] + self.beta * penalty, "spread": penalty}
