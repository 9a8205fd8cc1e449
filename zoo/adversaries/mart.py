"""MART.

Wang, Zou, Yi, Bailey, Ma, Gu: Improving adversarial robustness requires revisiting misclassified examples,
ICLR 2020.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._ascent import ce_ascent
from zoo.adversaries._base import Adversary, Threat, check_weight

TINY = 1e-6
"""Keeps log(1 - p) finite where a wrong class has probability one."""


@dataclass(frozen=True)
class Mart(Adversary):
    """Train on adversarial images with a margin term, and on the divergence where the clean image is misclassified."""

    beta: float = 5.0
    """Weight of the divergence (the paper's lambda)."""

    def __post_init__(self) -> None:
        check_weight(self.beta)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Climb the cross-entropy from a random start."""
        return ce_ascent(model, images, labels, threat, threat.steps)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return BCE(f(x'), y) + beta KL(f(x) || f(x')) (1 - f_y(x)), equation 12 of the paper."""
        logits, attacked = model(images).float(), model(adversarial).float()
        clean, wrong = F.softmax(logits, 1), F.softmax(attacked, 1).scatter(1, labels[:, None], 0).amax(1)
        boosted = F.cross_entropy(attacked, labels, label_smoothing=threat.label_smoothing)
        boosted = boosted - torch.log1p(-wrong.clamp_max(1 - TINY)).mean()
        divergence = F.kl_div(F.log_softmax(attacked, 1), clean, reduction="none").sum(1)
        weighted = (divergence * (1 - clean.gather(1, labels[:, None])[:, 0])).mean()
        return {"loss": boosted + self.beta * weighted, "logits": attacked.detach(), "divergence": weighted}
