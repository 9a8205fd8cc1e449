"""Adversarial training with PGD.

Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks,
ICLR 2018, arXiv 1706.06083. With a teacher: RSLAD of Zi, Zhao, Ma, Jiang: Revisiting adversarial robustness
distillation: robust soft labels make student better, ICCV 2021, arXiv 2108.07969.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from zoo.adversaries._ascent import ce_ascent
from zoo.adversaries._base import Adversary, Threat
from zoo.adversaries._classification import classification

CLEAN = 1 / 6
"""Weight of the clean images when a teacher gives the targets (RSLAD's; the attacked images have the rest)."""


@dataclass(frozen=True)
class PGDAdversary(Adversary):
    """Train on images found by projected gradient ascent on the cross-entropy from a random start."""

    takes_soft_targets: ClassVar[bool] = True

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Climb the loss from a random start."""
        return ce_ascent(model, images, labels, threat, threat.steps)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return the cross-entropy at the adversarial images x'; with soft targets T, the clean images x have a share.

        It is then 5/6 KL(T || f(x')) + 1/6 KL(T || f(x)), T the teacher's answers at x.
        """
        attacked = classification(model, adversarial, labels, threat)
        if threat.soft_targets is None:
            return attacked
        clean = classification(model, images, labels, threat)["loss"]
        return attacked | {"loss": (1 - CLEAN) * attacked["loss"] + CLEAN * clean}
