"""Plain training."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._base import Adversary, Threat


@dataclass(frozen=True)
class NoAdversary(Adversary):
    """Plain training: the cross-entropy at the images themselves."""

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Search nothing."""
        return images

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the images."""
        logits = model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=threat.label_smoothing)
        return {"loss": loss, "logits": logits.detach()}
