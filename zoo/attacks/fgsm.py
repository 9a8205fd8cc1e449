"""FGSM.

Goodfellow, Shlens, Szegedy: Explaining and harnessing adversarial examples, ICLR 2015, arXiv 1412.6572.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel
from zoo.attacks._base import Attack
from zoo.attacks.pgd import PGD

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One gradient step of length eps from the image (for L2: along the gradient itself), within [0, 1]."""

    def passes(self, classes: int) -> int:
        """Return one gradient."""
        return 1

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the images after the step: PGD with one step of size eps and no random start."""
        one_step = PGD(norm=self.norm, steps=1, relative_step=1.0, random_start=False)
        return one_step.perturb(attacked, images, labels, eps)
