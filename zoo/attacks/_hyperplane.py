"""The nearest point of a hyperplane within [0, 1]^d: the step of FAB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attacks._threat import Norm

if TYPE_CHECKING:
    from jaxtyping import Float

ROUNDS = 50
"""Newton steps at most; each one saturates at least one more pixel, and few are ever needed."""
FLAT = 1e-12
"""Slope, with the largest |w| taken as 1, at which all relevant pixels have reached 0 or 1."""


def to_hyperplane(
    x: Float[Tensor, "batch d"], w: Float[Tensor, "batch d"], excess: Float[Tensor, " batch"], norm: Norm
) -> Float[Tensor, "batch d"]:
    """Return the smallest d with <w, d> = -excess and x + d in [0, 1], or the d that comes closest to the equality.

    In L1 the pixels with the largest |w| move first, each to 0 or 1, until the total is reached.
    In Linf and L2 every pixel moves against the sign of ``excess w``, by t (Linf) or t |w| (L2) for one t per row,
    until it meets 0 or 1. The total <|w|, |d|> is concave and piecewise linear in t, so Newton's method from below
    finds the t of the given total, exactly once no more pixels saturate.
    Source: the projections of FAB (Croce, Hein: Minimally distorted adversarial examples with a fast adaptive
    boundary attack, ICML 2020, arXiv 1907.02044, section 3.1), solved without sorting.

    Args:
        x: points in [0, 1].
        w: normals.
        excess: <w, x> minus the hyperplane's offset.
        norm: to minimise.
    """
    direction = -torch.sign(w) * torch.sign(excess)[:, None]
    room = torch.where(direction > 0, 1 - x, x)
    scale = w.abs().amax(1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    weight, wanted = w.abs() / scale, excess.abs() / scale[:, 0]
    if norm == "L1":
        return direction * _largest_first(weight, room, wanted)
    speed = torch.ones_like(weight) if norm == "Linf" else weight
    t = torch.zeros_like(wanted)
    for _ in range(ROUNDS):
        free = t[:, None] * speed < room
        slope = (weight * speed * free).sum(1)
        held = (weight * room * ~free).sum(1)
        new = torch.where(slope > FLAT, torch.maximum((wanted - held) / slope, t), t)
        if bool((new <= t * (1 + 1e-6)).all()):
            break
        t = new
    return direction * torch.minimum(t[:, None] * speed, room)


def _largest_first(
    weight: Float[Tensor, "batch d"], room: Float[Tensor, "batch d"], wanted: Float[Tensor, " batch"]
) -> Float[Tensor, "batch d"]:
    """Return moves of at most the room, in order of weight, with the wanted sum of weight times move."""
    order = weight.argsort(1, descending=True)
    ordered = weight.gather(1, order)
    gains = ordered * room.gather(1, order)
    missing = (wanted[:, None] - (gains.cumsum(1) - gains)).clamp_min(0.0)
    moves = torch.minimum(missing / ordered.clamp_min(FLAT), room.gather(1, order))
    return torch.zeros_like(moves).scatter(1, order, torch.where(ordered > FLAT, moves, 0.0))
