"""Plain training."""

from dataclasses import dataclass

from torch import Tensor, nn

from zoo.adversaries._base import Adversary, Threat
from zoo.methods import cross_entropy


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
        return cross_entropy(model, images, labels, threat.label_smoothing)
