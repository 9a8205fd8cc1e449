"""Auto-PGD without a target.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, arXiv 2003.01690; in L1 their Mind the box, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from torch import Tensor

from zoo.attacks._apgd import apgd
from zoo.attacks._apgd_l1 import apgd_l1
from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._losses import cross_entropy, dlr
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import Norm
from zoo.errors import unknown_name

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LossName = Literal["ce", "dlr"]


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD: gradient ascent with momentum whose step size halves when progress ends.

    On the cross-entropy it is the first attack of AutoAttack. The difference of logits ratio (``dlr``) does
    not vanish for confident models; it needs three classes. In L1 the steps are sparse, and the ball shrinks from three
    times eps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")

    loss: LossName = "ce"
    """The loss to maximise: the cross-entropy, or the difference of logits ratio."""
    steps: int = 100
    """Gradient steps of each restart."""
    restarts: int = 1
    """Searches of each image until one succeeds."""
    seed: int = 0
    """Seed of the random starts, which depend only on it and on the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in get_args(LossName):
            raise unknown_name("loss", self.loss, get_args(LossName))

    def obstacle(self, classes: int) -> str:
        """Require a third largest logit."""
        needs_three = self.loss == "dlr" and classes < 3
        return f"APGD on the DLR loss needs 3 classes, the model has {classes}" if needs_three else ""

    def passes(self, classes: int) -> int:
        """Return one gradient per step, and one at the start; in L1 at the start of each of three stages."""
        return (self.steps + (3 if self.norm == "L1" else 1)) * self.restarts

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the images at which the ascent ended."""
        streams = RandomStreams.of(images, self.seed, "apgd")
        loss = cross_entropy if self.loss == "ce" else dlr

        def search(restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            x, y, own = images[rows], labels[rows], streams[rows].at(restart)
            if self.norm == "L1":
                return apgd_l1(attacked, x, y, eps, loss, None, self.steps, own)
            return apgd(attacked, x, y, eps, self.norm, loss, None, self.steps, own)

        return in_turn(attacked, images, labels, [partial(search, restart) for restart in range(self.restarts)])
