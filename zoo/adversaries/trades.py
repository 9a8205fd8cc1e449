"""TRADES.

Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan: Theoretically principled trade-off between robustness and accuracy,
ICML 2019, arXiv 1901.08573.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._ascent import kl_ascent
from zoo.adversaries._base import Adversary, Threat, check_weight
from zoo.adversaries._classification import classification_loss


@dataclass(frozen=True)
class Trades(Adversary):
    """Train on the images, and pull the answers on nearby images towards theirs by beta times the KL divergence."""

    takes_soft_targets: ClassVar[bool] = True

    beta: float = 6.0
    """Weight of the divergence: larger is more robust and less accurate (the paper's 1/lambda)."""

    def __post_init__(self) -> None:
        check_weight(self.beta)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Climb the distance between the answers on the image and beside it."""

        def divergence(logits: Tensor, target: Tensor) -> Tensor:
            return F.kl_div(F.log_softmax(logits, 1), target, reduction="sum")

        return kl_ascent(model, images, divergence, threat.eps, threat.steps)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return CE(f(x), y) + beta KL(f(x) || f(x')), equation 5 of the paper, with its gradient through both.

        With soft targets T the first term is KL(T || f(x)).
        """
        logits, attacked = model(images).float(), model(adversarial).float()
        divergence = F.kl_div(F.log_softmax(attacked, 1), F.softmax(logits, 1), reduction="batchmean")
        loss = classification_loss(logits, labels, threat) + self.beta * divergence
        return {"loss": loss, "logits": attacked.detach(), "divergence": divergence}
