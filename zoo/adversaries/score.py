"""SCORE: squared distances of probabilities in place of cross-entropy and KL divergence.

Pang, Lin, Yang, Zhu, Yan: Robustness and accuracy could be reconcilable by (proper) definition, ICML 2022,
arXiv 2202.10103.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._ascent import kl_ascent
from zoo.adversaries._base import Adversary, Threat, check_weight


@dataclass(frozen=True)
class Score(Adversary):
    """TRADES with squared distances of probabilities, which allow an answer to change where the truth changes.

    The clipping of small losses in the authors' code is left out.
    """

    takes_soft_targets: ClassVar[bool] = True

    beta: float = 4.0
    """Weight of the distance between the answers on the image and on the adversarial image."""

    def __post_init__(self) -> None:
        check_weight(self.beta)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Climb the distance between the answers on the image and beside it."""

        def distance(logits: Tensor, target: Tensor) -> Tensor:
            return (F.softmax(logits, 1) - target).square().sum()

        return kl_ascent(model, images, distance, threat.eps, threat.steps)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return ||p(x) - y||^2 + beta ||p(x') - p(x)||^2, with y the smoothed labels or the soft targets."""
        logits, attacked = model(images).float(), model(adversarial).float()
        clean, found = F.softmax(logits, 1), F.softmax(attacked, 1)
        truth = threat.soft_targets
        if truth is None:
            smooth = threat.label_smoothing
            truth = F.one_hot(labels, logits.shape[1]) * (1 - smooth) + smooth / logits.shape[1]
        distance = (found - clean).square().sum(1).mean()
        loss = (clean - truth.to(clean)).square().sum(1).mean() + self.beta * distance
        return {"loss": loss, "logits": attacked.detach(), "distance": distance}
