"""Fast adversarial training: FGSM from a random start.

Wong, Rice, Kolter: Fast is better than free: revisiting adversarial training, ICLR 2020, arXiv 2001.03994.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from zoo.adversaries._ascent import ce_ascent
from zoo.adversaries._base import Adversary, Threat
from zoo.adversaries._classification import classification
from zoo.errors import UserError


@dataclass(frozen=True)
class FGSMRS(Adversary):
    """Train on images one large gradient step from a random start: much cheaper than PGD; takes no --steps."""

    takes_soft_targets: ClassVar[bool] = True

    alpha: float = 1.25
    """Step size in units of eps (the paper's; training collapses if it is much larger)."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 2:
            raise UserError(f"alpha {self.alpha} is invalid: the step must be in (0, 2] eps")

    @property
    def single_step(self) -> float:
        """The only step of the search."""
        return self.alpha

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Take one large step up the loss from a random start."""
        return ce_ascent(model, images, labels, threat, 1, self.alpha)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return the classification loss of the adversarial images (Algorithm 3 of the paper)."""
        return classification(model, adversarial, labels, threat)
