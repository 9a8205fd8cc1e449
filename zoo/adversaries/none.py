"""Plain training."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from zoo.adversaries._base import Adversary, Threat
from zoo.adversaries._classification import classification


@dataclass(frozen=True)
class NoAdversary(Adversary):
    """Plain training: the cross-entropy at the images themselves."""

    takes_soft_targets: ClassVar[bool] = True

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Search nothing."""
        return images

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return the classification loss of the images."""
        return classification(model, images, labels, threat)
