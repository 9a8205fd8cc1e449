"""Auto-PGD in L1: gradient ascent by sparse steps, projected onto the intersection of the L1 ball with [0, 1].

Croce, Hein: Mind the box: l1-APGD for sparse adversarial attacks on image classifiers, ICML 2021, arXiv 2103.01208:
Algorithm 1 with the schedule of three radii of section 3.3, as AutoAttack runs it in L1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, Loss
from zoo.attacks._random import RandomStreams
from zoo.attacks._threat import column, project

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radii in units of eps, and the share of the steps that each gets: a larger ball leads past poor local maxima."""
CHECK = 0.04
"""Share of a stage's steps after which sparsity and step size are set anew."""
SPARSER = 1.5
"""A step changes the best point's number of changed entries over this; the step size shrinks by it too."""
SETTLED = 0.95
"""Ratio of the numbers of changed entries at two checks from which sparsity has settled and the step size shrinks."""
SMALLEST = 0.1
"""Smallest step size, in units of the radius."""


@dataclass
class _Search:
    """The ascent of each image: every field has one row per image."""

    rows: Int[Tensor, " batch"]
    images: Float[Tensor, "batch c h w"]
    x: Float[Tensor, "batch c h w"]
    gradient: Float[Tensor, "batch c h w"]
    best: Float[Tensor, "batch c h w"]
    best_value: Float[Tensor, " batch"]
    best_gradient: Float[Tensor, "batch c h w"]
    size: Float[Tensor, " batch"]
    changed: Int[Tensor, " batch"]

    def keep(self, standing: Bool[Tensor, " batch"]) -> None:
        """Drop all other images."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[standing])

    def look(self, radius: float) -> None:
        """Restart from the best point where it became sparser, and take shorter steps where it did not."""
        changed = _changed(self.best, self.images)
        sparser = changed < SETTLED * self.changed
        shorter = (self.size / SPARSER).clamp_min(SMALLEST * radius)
        self.size = torch.where(sparser, radius, shorter)
        self.x = torch.where(column(sparser), self.best, self.x)
        self.gradient = torch.where(column(sparser), self.best_gradient, self.gradient)
        self.changed = changed


def apgd_l1(
    attacked: AttackedModel,
    images: Float[Tensor, "batch c h w"],
    labels: Int[Tensor, " batch"],
    eps: float,
    loss: Loss,
    targets: Int[Tensor, " batch"] | None,
    steps: int,
    streams: RandomStreams,
) -> Float[Tensor, "batch c h w"]:
    """Return the first misclassified point within eps of each image's ascent, or its point of largest loss there.

    Arguments as in `zoo.attacks._apgd.apgd`; the start is Gaussian noise, projected.
    """
    per_image = (labels,) if targets is None else (labels, targets)
    counts = _split(steps)
    start = images + streams.normal(*images.shape[1:]).to(images)
    for (scale, _), count in list(zip(STAGES, counts, strict=True))[:-1]:
        if count:
            start = _climb(attacked, images, start, scale * eps, loss, per_image, count, stop=False)
    return _climb(attacked, images, start, eps, loss, per_image, counts[-1], stop=True)


def _split(steps: int) -> list[int]:
    """Return the steps of each stage."""
    early = [ceil(round(share * steps, 6)) for _, share in STAGES[:-1]] if steps >= len(STAGES) else [0, 0]
    return [*early, steps - sum(early)]


def _climb(
    attacked: AttackedModel,
    images: Float[Tensor, "batch c h w"],
    start: Float[Tensor, "batch c h w"],
    radius: float,
    loss: Loss,
    per_image: tuple[Int[Tensor, " batch"], ...],
    steps: int,
    *,
    stop: bool,
) -> Float[Tensor, "batch c h w"]:
    """Climb within one radius; with ``stop`` an image leaves the batch as soon as it is misclassified."""
    start = project(start, images, radius, "L1")
    found, rows = start.clone(), torch.arange(len(images), device=images.device)
    wrong, value, gradient = attacked.ascent(start, loss, *per_image)
    size, changed = torch.full_like(value, radius), _changed(start, images)
    state = _Search(rows, images, start, gradient, start, value, gradient, size, changed)
    if stop:
        state.keep(~wrong)
    every = max(int(CHECK * steps), 1)
    for i in range(1, steps + 1):
        if not len(state.rows):
            break
        state.x = project(_step(state), state.images, radius, "L1")
        wrong, value, state.gradient = attacked.ascent(state.x, loss, *(t[state.rows] for t in per_image))
        better = value > state.best_value
        state.best = torch.where(column(better), state.x, state.best)
        state.best_gradient = torch.where(column(better), state.gradient, state.best_gradient)
        state.best_value = torch.where(better, value, state.best_value)
        if stop and bool(wrong.any()):
            found[state.rows[wrong]] = state.x[wrong]
            state.keep(~wrong)
        if i % every == 0:
            state.look(radius)
    found[state.rows] = state.best
    return found


def _step(state: _Search) -> Float[Tensor, "batch c h w"]:
    """Move the entries with the largest gradients by equal amounts, whose sum is the step size."""
    magnitude = state.gradient.flatten(1).abs()
    wanted = (state.changed / SPARSER).long().clamp(1, magnitude.shape[1])
    smallest = magnitude.sort(1, descending=True).values.gather(1, wanted[:, None] - 1)
    signs = torch.where(magnitude >= smallest, state.gradient.flatten(1).sign(), 0.0)
    step = signs / signs.abs().sum(1, keepdim=True).clamp_min(1.0) * state.size[:, None]
    return state.x + step.view_as(state.x)


def _changed(x: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"]) -> Int[Tensor, " batch"]:
    """Return how many numbers of each image differ."""
    return (x != images).flatten(1).sum(1)
