"""Auto-PGD: projected gradient ascent with momentum whose step size adapts to its progress.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, arXiv 2003.01690, Algorithm 1. Where the paper and the reference implementation of AutoAttack
(autopgd_base.py) differ, this follows the reference, because figures are compared with it and with RobustBench: the
step size is also halved if exactly the share `RISES` of the steps rose (``<=``; the paper has ``<``). In 100 steps only
the third check can meet that case, with 12 of 16. One rule is the paper's: the first step counts as a rise if the loss
exceeds the start's; the reference compares it with zero.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, Loss
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import Norm, column, project, random_on_sphere, steepest

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MOMENTUM = 0.75
"""alpha of the paper: the share of the new step; the rest repeats the last one."""
RISES = 0.75
"""rho of the paper: the step size is halved unless the loss rose in more than this share of the last steps."""


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is checked: w_j of section 3.1, 22 41 57 70 80 87 93 99 of 100."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({ceil(round(share * steps, 6)) for share in shares[1:] if share <= 1})


@dataclass
class _Search:
    """The ascent of each image that is robust so far: every field has one row per image."""

    rows: Int[Tensor, " batch"]
    images: Float[Tensor, "batch c h w"]
    x: Float[Tensor, "batch c h w"]
    before: Float[Tensor, "batch c h w"]
    value: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch c h w"]
    best: Float[Tensor, "batch c h w"]
    best_value: Float[Tensor, " batch"]
    best_gradient: Float[Tensor, "batch c h w"]
    size: Float[Tensor, " batch"]
    rises: Float[Tensor, " batch"]
    last_best: Float[Tensor, " batch"]
    halved: Bool[Tensor, " batch"]

    def drop(self, gone: Bool[Tensor, " batch"]) -> None:
        """Drop the misclassified images."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[~gone])

    def look(self, since: int) -> None:
        """Halve the step size and return to the best point wherever the last ``since`` steps gained too little."""
        stuck = ~self.halved & (self.best_value <= self.last_best)
        halve = (self.rises <= RISES * since) | stuck
        self.size = torch.where(halve, self.size / 2, self.size)
        there = column(halve)
        self.x = torch.where(there, self.best, self.x)
        self.gradient = torch.where(there, self.best_gradient, self.gradient)
        self.halved, self.last_best = halve, self.best_value.clone()
        self.rises = torch.zeros_like(self.rises)


def apgd(
    attacked: AttackedModel,
    images: Float[Tensor, "batch c h w"],
    labels: Int[Tensor, " batch"],
    eps: float,
    norm: Norm,
    loss: Loss,
    targets: Int[Tensor, " batch"] | None,
    steps: int,
    streams: RandomStreams,
) -> Float[Tensor, "batch c h w"]:
    """Return the first misclassified point of each image's ascent, or its point of largest loss if there is none.

    All images climb side by side; a misclassified one leaves the batch at once, which changes no verdict.

    Args:
        attacked: the model under attack.
        images: in [0, 1].
        labels: class indices.
        eps: radius.
        norm: of the ball.
        loss: to maximise; of the logits, the labels and the targets if there are any.
        targets: classes to go towards.
        steps: gradient steps.
        streams: of the images' random starts, on the sphere of radius eps.
    """
    start = project(images + eps * random_on_sphere(images, norm, streams), images, eps, norm)
    found = start.clone()
    rows = torch.arange(len(images), device=images.device)
    per_image = (labels,) if targets is None else (labels, targets)
    wrong, value, gradient = attacked.ascent(start, loss, *per_image)
    state = _Search(
        rows, images, start, start, value, gradient, start, value, gradient,
        torch.full_like(value, 2 * eps), torch.zeros_like(value), value,
        torch.ones_like(value, dtype=torch.bool),
    )  # fmt: skip
    state.drop(wrong)
    last, looks = 0, set(checkpoints(steps))
    for i in range(1, steps + 1):
        if not len(state.rows):
            break
        state.x, state.before = _step(state, eps, norm, 1.0 if i == 1 else MOMENTUM), state.x
        fallen, value, state.gradient = attacked.ascent(state.x, loss, *(t[state.rows] for t in per_image))
        found[state.rows[fallen]] = state.x[fallen]
        state.rises += value > state.value
        state.value = value
        better = value > state.best_value
        state.best = torch.where(column(better), state.x, state.best)
        state.best_gradient = torch.where(column(better), state.gradient, state.best_gradient)
        state.best_value = torch.where(better, value, state.best_value)
        if bool(fallen.any()):
            state.drop(fallen)
        if i in looks:
            state.look(i - last)
            last = i
    found[state.rows] = state.best
    return found


def _step(state: _Search, eps: float, norm: Norm, share: float) -> Float[Tensor, "batch c h w"]:
    ahead = project(state.x + column(state.size) * steepest(state.gradient, norm), state.images, eps, norm)
    moved = state.x + share * (ahead - state.x) + (1 - share) * (state.x - state.before)
    return project(moved, state.images, eps, norm)
