"""Targeted Auto-PGD: the second attack of AutoAttack.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, arXiv 2003.01690; in L1 their Mind the box, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from zoo.attacks._apgd import apgd
from zoo.attacks._apgd_l1 import apgd_l1
from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._losses import likeliest_others, targeted_dlr
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import Norm

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class APGDT(Attack):
    """Auto-PGD on the targeted difference of logits ratio, towards one class after the other, likeliest first."""

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")

    targets: int = 9
    """Classes to try; all others if there are fewer."""
    steps: int = 100
    """Gradient steps towards each class."""
    restarts: int = 1
    """Searches towards each class."""
    seed: int = 0
    """Seed of the random starts, which depend only on it and on the image."""

    def obstacle(self, classes: int) -> str:
        """Require a fourth largest logit."""
        return "" if classes >= 4 else f"targeted APGD needs 4 classes, the model has {classes}"

    def passes(self, classes: int) -> int:
        """Return the passes of `APGD` towards each class."""
        return (self.steps + (3 if self.norm == "L1" else 1)) * self.restarts * min(self.targets, classes - 1)

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the images at which the last ascent ended."""
        streams = RandomStreams.of(images, self.seed, "apgd_t")
        logits = attacked.logits(images)
        others = likeliest_others(logits, labels, min(self.targets, logits.shape[1] - 1))

        def search(k: int, restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            x, y, own = images[rows], labels[rows], streams[rows].at(k, restart)
            if self.norm == "L1":
                return apgd_l1(attacked, x, y, eps, targeted_dlr, others[rows, k], self.steps, own)
            return apgd(attacked, x, y, eps, self.norm, targeted_dlr, others[rows, k], self.steps, own)

        towards_each = [partial(search, k, r) for k in range(others.shape[1]) for r in range(self.restarts)]
        return in_turn(attacked, images, labels, towards_each)
