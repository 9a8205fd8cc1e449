"""Adversarial training with PGD.

Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks,
ICLR 2018, arXiv 1706.06083.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from zoo.adversaries._ascent import ce_ascent
from zoo.adversaries._base import Adversary, Threat
from zoo.methods import cross_entropy


@dataclass(frozen=True)
class PGDAdversary(Adversary):
    """Train on images found by projected gradient ascent on the cross-entropy from a random start."""

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Climb the cross-entropy from a random start."""
        return ce_ascent(model, images, labels, threat, threat.steps)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the adversarial images (equation 2.1 of the paper)."""
        return cross_entropy(model, adversarial, labels, threat.label_smoothing)
