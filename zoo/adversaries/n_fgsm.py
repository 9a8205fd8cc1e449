"""N-FGSM: one gradient step from a start with more noise than the radius.

de Jorge, Bibi, Volpi, Sanyal, Torr, Rogez, Dokania: Make some noise: reliable and efficient single-step adversarial
training, NeurIPS 2022, arXiv 2202.01181.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from zoo.adversaries._ascent import one_step
from zoo.adversaries._base import Adversary, Threat
from zoo.adversaries._classification import classification
from zoo.errors import UserError


@dataclass(frozen=True)
class NFGSM(Adversary):
    """Train on images one gradient step from a very noisy start: as cheap as fgsm_rs and stable; takes no --steps.

    The images it trains on lie within ``noise + alpha`` radii, not one: clipping them to the ball brings
    catastrophic overfitting back (section 4 of the paper).
    """

    takes_soft_targets: ClassVar[bool] = True

    noise: float = 2.0
    """Half-width of the uniform noise at the start, in units of eps (the paper's k)."""

    alpha: float = 1.0
    """Size of the step in units of eps."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 4:
            raise UserError(f"noise {self.noise} is invalid: the start must be within 0 to 4 eps")
        if not 0 < self.alpha <= 4:
            raise UserError(f"alpha {self.alpha} is invalid: the step must be in (0, 4] eps")

    @property
    def single_step(self) -> float:
        """The only step of the search."""
        return self.alpha

    @property
    def reach(self) -> float:
        """Return the sum of the noise and the step, which are not clipped to the ball."""
        return self.noise + self.alpha

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Take one step up the loss from a noisy start, without projecting onto the ball (Algorithm 1)."""
        return one_step(model, images, labels, threat, self.noise, self.alpha)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return the classification loss of the adversarial images."""
        return classification(model, adversarial, labels, threat)
