"""AutoAttack, the standard ensemble.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, arXiv 2003.01690; in L1 their Mind the box, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._threat import Norm
from zoo.attacks.apgd import APGD
from zoo.attacks.apgd_t import APGDT
from zoo.attacks.fab_t import FABT
from zoo.attacks.square import Square

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The standard AutoAttack: APGD on the cross-entropy, targeted APGD, targeted FAB, Square, in this order.

    Each attack gets the images that are robust to the earlier ones; an image is robust if all fail on it.
    The steps, queries and targets of the standard version are the defaults of the four attacks.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")

    restarts: int = 1
    """Searches of APGD, of targeted APGD towards each class, and of Square; 1 in the standard version."""
    seed: int = 0
    """Seed of the random starts and squares."""

    def parts(self, classes: int) -> list[Attack]:
        """Return the attacks that suit a model with this number of classes (fewer than 4: no targeted APGD)."""
        return [attack for attack in self._standard() if not attack.obstacle(classes)]

    def skipped(self, classes: int) -> list[Attack]:
        """Return the attacks that `parts` leaves out."""
        return [attack for attack in self._standard() if attack.obstacle(classes)]

    def _standard(self) -> list[Attack]:
        return [
            APGD(norm=self.norm, loss="ce", restarts=self.restarts, seed=self.seed),
            APGDT(norm=self.norm, restarts=self.restarts, seed=self.seed),
            FABT(norm=self.norm),
            Square(norm=self.norm, restarts=self.restarts, seed=self.seed),
        ]

    def passes(self, classes: int) -> int:
        """Return the passes of all parts."""
        return sum(part.passes(classes) for part in self.parts(classes))

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return where the last attack of each image ended."""

        def search(attack: Attack, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            return attack.perturb(attacked, images[rows], labels[rows], eps)

        classes = attacked.logits(images[:1]).shape[1]
        return in_turn(attacked, images, labels, [partial(search, attack) for attack in self.parts(classes)])
