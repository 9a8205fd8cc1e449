"""PGD.

Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks,
ICLR 2018, arXiv 1706.06083.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._losses import cross_entropy
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import project, random_in_ball, steepest
from zoo.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy, within the ball and [0, 1].

    x <- P(x + relative_step eps/steps * d), where d is the sign of the gradient (Linf) or the gradient over
    its length (L2), and P the projection (equation 2.2 of the paper, for both norms). An image leaves the
    batch as soon as it is misclassified; one that never is ends at the last restart's last point.
    """

    steps: int = 10
    """Gradient steps of each restart."""
    relative_step: float = 2.5
    """Step size in units of eps/steps; 2.5 crosses the ball (Madry et al.), CondLR has 1.25."""
    random_start: bool = True
    """Start at a uniform point of the ball (a new one for each restart) instead of at the image."""
    restarts: int = 1
    """Searches of each image until one succeeds; more than one needs a random start."""
    seed: int = 0
    """Seed of the random starts, which depend only on it and on the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.relative_step > 0:
            raise UserError(f"{self!r}: relative_step must be above 0")
        if self.restarts > 1 and not self.random_start:
            raise UserError(f"{self!r}: restarts need a random start: they would repeat the same search")

    def passes(self, classes: int) -> int:
        """Return one gradient per step."""
        return self.steps * self.restarts

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the images at which the ascent ended."""
        streams = RandomStreams.of(images, self.seed, "pgd")

        def search(restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            x, start = images[rows], images[rows]
            if self.random_start:
                noise = eps * random_in_ball(x, self.norm, streams[rows].at(restart))
                start = project(x + noise, x, eps, self.norm)
            return self._ascend(attacked, x, labels[rows], start, eps)

        return in_turn(attacked, images, labels, [partial(search, restart) for restart in range(self.restarts)])

    def _ascend(
        self,
        attacked: AttackedModel,
        images: Float[Tensor, "batch c h w"],
        labels: Int[Tensor, " batch"],
        x: Float[Tensor, "batch c h w"],
        eps: float,
    ) -> Float[Tensor, "batch c h w"]:
        """Take the steps from x; a misclassified image leaves the batch at its current point."""
        found = torch.empty_like(x)
        rows = torch.arange(len(x), device=x.device)
        size = self.relative_step * eps / self.steps
        for _ in range(self.steps):
            fallen, _, gradient = attacked.ascent(x, cross_entropy, labels)
            if bool(fallen.any()):
                keep = ~fallen
                found[rows[fallen]] = x[fallen]
                rows, x, images, labels, gradient = (t[keep] for t in (rows, x, images, labels, gradient))
                if not len(rows):
                    return found
            x = project(x + size * steepest(gradient, self.norm), images, eps, self.norm)
        found[rows] = x
        return found
