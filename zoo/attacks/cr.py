"""The constraint-relaxation attack: a cheap estimate of the accuracy under AutoAttack.

Pan, Yao: Efficient robustness evaluation via constraint relaxation, AAAI 2025. Its authors compare it with AutoAttack
in Linf only, on models trained against attacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel
from zoo.attacks._base import Attack
from zoo.attacks._losses import likeliest_others, margin, towards
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import Norm, project, random_in_ball, steepest
from zoo.attacks.pgd import PGD
from zoo.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

FINEST = 0.05
"""Smallest scale: step size and relaxation in units of eps."""
NEAR = 0.05
"""An image whose margin came this close to 0, in logits, is searched again in the next restart."""


@dataclass(frozen=True, kw_only=True)
class CR(Attack):
    """Ascent towards the likeliest classes, in a ball that grows and shrinks around the one of radius eps.

    Ten steps of PGD find the targets. Towards each, from a random point, the search runs in cycles of three parts: in
    a ball of radius eps (1 + scale), where the verdict is taken at the point projected onto eps; at eps; and from the
    ball of eps (1 - scale), after noise that leads back to eps, at eps again. Steps are eps scale long; scale is 1/2 in
    the first cycle and halves with each. After the second part the images whose margin exceeds scale are given up
    for this target. Restarts are for those that came near.
    """

    targets: int = 3
    """Classes to try; all others if there are fewer."""
    steps: int = 150
    """Gradient steps towards each class."""
    cycle: int = 30
    """Steps of a cycle, 3 or more."""
    restarts: int = 5
    """Searches towards each class; after the first, only for images that the previous one nearly broke."""
    seed: int = 0
    """Seed of the random starts and the noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycle < 3:
            raise UserError(f"{self!r}: cycle must be at least 3, one step for each of its parts")

    @property
    def first(self) -> PGD:
        """The first attack, which finds the targets: steps of half of eps."""
        return PGD(norm=self.norm, steps=10, relative_step=5.0, seed=self.seed)

    def passes(self, classes: int) -> int:
        """Return the passes of `first` and of one search towards each class: a gradient per step, and some verdicts."""
        verdicts = self.steps // 3
        return self.first.passes(classes) + min(self.targets, classes - 1) * (self.steps + verdicts)

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the misclassified points that were found; if there is none, the last point of `first`."""
        found = self.first.perturb(attacked, images, labels, eps)
        logits = attacked.logits(found)
        standing = logits.argmax(1) == labels
        others = likeliest_others(logits, labels, min(self.targets, logits.shape[1] - 1))
        near = torch.ones_like(others, dtype=torch.bool)
        streams = RandomStreams.of(images, self.seed, "cr")
        searches = [(restart, k) for restart in range(self.restarts) for k in range(others.shape[1])]
        for number, (_, k) in enumerate(searches):
            rows = (standing & near[:, k]).nonzero().flatten()
            if not len(rows):
                continue
            noise = partial(_noise, self.norm, streams.at(number))
            x = images[rows]
            start = project(x + eps * noise(x, rows, 0), x, eps, self.norm)
            climb = _Climb(rows, x, labels[rows], others[rows, k], start)
            near[:, k] = False
            self._search(attacked, climb, eps, noise, found, near[:, k])
            standing[rows] = attacked.correct(found[rows], labels[rows])
        return found

    def _search(
        self,
        attacked: AttackedModel,
        climb: _Climb,
        eps: float,
        noise: _Noise,
        found: Float[Tensor, "batch c h w"],
        near: Bool[Tensor, " batch"],
    ) -> None:
        """Climb towards the targets; record the misclassified points and the images that came near."""
        third = self.cycle // 3
        for step in range(self.steps):
            cycle, at = divmod(step, self.cycle)
            scale = max(0.5 ** (cycle + 1), FINEST)
            if at == 2 * third:
                inner = project(climb.x, climb.images, eps * (1 - scale), self.norm)
                shift = eps * scale * noise(climb.images, climb.rows, cycle + 1)
                climb.x = project(inner + shift, climb.images, eps, self.norm)
            before = climb.x
            if at > third:
                fallen, lead, gradient = attacked.ascent(before, towards, climb.labels, climb.targets)
            else:
                lead, gradient = attacked.gradient(before, towards, climb.labels, climb.targets)
            radius = eps * (1 + scale) if at < third else eps
            climb.x = project(before + eps * scale * steepest(gradient, self.norm), climb.images, radius, self.norm)
            judged = before
            if at <= third:
                judged = project(climb.x, climb.images, eps, self.norm)
                lead = _lead(attacked, judged, climb.labels)
                fallen = lead > 0
            found[climb.rows[fallen]] = judged[fallen]
            near[climb.rows[lead > -NEAR]] = True
            hopeless = lead < -scale if at == 2 * third - 1 else torch.zeros_like(fallen)
            climb.keep(~(fallen | hopeless))
            if not len(climb.rows):
                return


@dataclass
class _Climb:
    """The images that still climb, one row each: their places in the batch, labels, targets and current points."""

    rows: Int[Tensor, " climbing"]
    images: Float[Tensor, "climbing c h w"]
    labels: Int[Tensor, " climbing"]
    targets: Int[Tensor, " climbing"]
    x: Float[Tensor, "climbing c h w"]

    def keep(self, these: Bool[Tensor, " climbing"]) -> None:
        """Keep these rows and drop the others."""
        if not bool(these.all()):
            for field in fields(self):
                setattr(self, field.name, getattr(self, field.name)[these])


_Noise = Callable[[Tensor, Tensor, int], Tensor]
"""Maps images, their places in the batch and a moment of the search to a point of the unit ball for each."""


def _noise(
    norm: Norm,
    streams: RandomStreams,
    images: Float[Tensor, "climbing c h w"],
    rows: Int[Tensor, " climbing"],
    moment: int,
) -> Float[Tensor, "climbing c h w"]:
    return random_in_ball(images, norm, streams[rows].at(moment))


def _lead(
    attacked: AttackedModel, x: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the margins, above 0 if misclassified; those above 0 are computed in fp32."""
    value = margin(attacked.estimate(x), labels)
    wrong = value > 0
    if attacked.gradients != "fp32" and bool(wrong.any()):
        value[wrong] = margin(attacked.logits(x[wrong]), labels[wrong])
    return value
