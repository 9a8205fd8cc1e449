"""Targeted FAB: the third attack of AutoAttack.

Croce, Hein: Minimally distorted adversarial examples with a fast adaptive boundary attack, ICML 2020,
arXiv 1907.02044; targeted as in AutoAttack, arXiv 2003.01690.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._hyperplane import to_hyperplane
from zoo.attacks._losses import likeliest_others, towards
from zoo.attacks._threat import ORDER, Norm, column, distance

if TYPE_CHECKING:
    from jaxtyping import Float, Int

OVERSHOOT = 1.05
"""eta: how far past the linearized boundary a step goes."""
TO_IMAGE = 0.1
"""alpha_max: the largest share of the step that starts at the image instead of the current point."""
BACK = 0.9
"""beta: a misclassified point is pulled back to this share of its way from the image."""


@dataclass(frozen=True, kw_only=True)
class FABT(Attack):
    """FAB towards one class after the other: seeks the nearest misclassified point by linearizing the boundary.

    An image is broken as soon as a misclassified point lies within eps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")

    targets: int = 9
    """Classes to try, likeliest first; all others if there are fewer."""
    steps: int = 100
    """Linearizations of the boundary with each class."""

    def passes(self, classes: int) -> int:
        """Return a gradient and a verdict per step, towards each class."""
        return 2 * self.steps * min(self.targets, classes - 1)

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return a misclassified point within eps if one was found, otherwise the image."""
        logits = attacked.logits(images)
        others = likeliest_others(logits, labels, min(self.targets, logits.shape[1] - 1))

        def search(k: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            return _search(attacked, images[rows], labels[rows], others[rows, k], eps, self.norm, self.steps)

        return in_turn(attacked, images, labels, [partial(search, k) for k in range(others.shape[1])])


def _search(
    attacked: AttackedModel,
    images: Float[Tensor, "batch c h w"],
    labels: Int[Tensor, " batch"],
    targets: Int[Tensor, " batch"],
    eps: float,
    norm: Norm,
    steps: int,
) -> Float[Tensor, "batch c h w"]:
    """Follow the boundary with one class per image; an image misclassified within eps leaves the batch."""
    found, x = images.clone(), images.clone()
    rows = torch.arange(len(images), device=images.device)
    for _ in range(steps):
        behind, normal = attacked.gradient(x, towards, labels, targets)
        x = _step(x, images, behind, normal, norm)
        wrong = attacked.logits(x).argmax(1) != labels
        fallen = wrong & (distance(x, images, norm) <= eps)
        found[rows[fallen]] = x[fallen]
        x = torch.where(column(wrong), images + BACK * (x - images), x)
        if bool(fallen.any()):
            keep = ~fallen
            rows, x, images, labels, targets = (t[keep] for t in (rows, x, images, labels, targets))
            if not len(rows):
                break
    return found


def _step(
    x: Float[Tensor, "batch c h w"],
    images: Float[Tensor, "batch c h w"],
    behind: Float[Tensor, " batch"],
    normal: Float[Tensor, "batch c h w"],
    norm: Norm,
) -> Float[Tensor, "batch c h w"]:
    """Move to the linearized boundary, partly from the point and partly from the image (equation 11).

    Args:
        x: current points.
        images: the images.
        behind: the target's logit minus the label's at x.
        normal: its gradient.
        norm: of distances.
    """
    w = normal.flatten(1)
    points = torch.cat([x.flatten(1), images.flatten(1)])
    excess = torch.cat([behind, behind + (w * (images - x).flatten(1)).sum(1)])
    here, there = to_hyperplane(points, torch.cat([w, w]), excess, norm).view(2, *x.shape)
    near, far = (torch.linalg.vector_norm(d.flatten(1), ORDER[norm], dim=1).clamp_min(1e-8) for d in (here, there))
    alpha = column((near / (near + far)).clamp_max(TO_IMAGE))
    return ((1 - alpha) * (x + OVERSHOOT * here) + alpha * (images + OVERSHOOT * there)).clamp(0.0, 1.0)
