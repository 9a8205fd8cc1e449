"""The random proposals of the Square attack: squares of constant sign (Linf), or moved and bumped windows (L2, L1).

Andriushchenko, Croce, Flammarion, Hein: Square attack: a query-efficient black-box adversarial attack via
random search, ECCV 2020, arXiv 1912.00049: section 3 and Algorithms 2 and 3. L1: Croce, Hein: Mind the box: l1-APGD
for sparse adversarial attacks on image classifiers, ICML 2021, arXiv 2103.01208, appendix.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.attacks._random import RandomStreams, as_signs
from zoo.attacks._threat import ORDER, Norm, column, project

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Int

SHARE = 0.8
"""p of the paper: the share of the image's pixels in the first square."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share is halved, however many there are: the paper scales them to other numbers of queries
than 10,000, but AutoAttack, which asks 5,000, does not."""
TINY = 1e-12


def side(query: int, height: int, width: int, smallest: int = 1) -> int:
    """Return the side of the square of a query (from 0): its area is the current share of the image's pixels."""
    halvings = sum(query > after for after in HALVINGS)
    wanted = round(math.sqrt(SHARE / 2**halvings * height * width))
    return min(max(wanted, smallest), height, width)


def stripes(images: Float[Tensor, "batch c h w"], eps: float, streams: RandomStreams) -> Float[Tensor, "batch c h w"]:
    """Return the Linf start: vertical stripes of +eps or -eps, one pixel wide, drawn for each channel."""
    _, c, _, w = images.shape
    return project(images + eps * streams.signs(c, 1, w).to(images), images, eps, "Linf")


def signed_square(
    x: Float[Tensor, "batch c h w"],
    images: Float[Tensor, "batch c h w"],
    eps: float,
    inside: Bool[Tensor, "batch 1 h w"],
    sign: Float[Tensor, "batch c 1 1"],
) -> Float[Tensor, "batch c h w"]:
    """Return the Linf proposal: +eps or -eps of the image, per channel, inside a square, and x outside.

    Args:
        x: present points.
        images: the images.
        eps: radius.
        inside: the square.
        sign: +1 or -1.
    """
    return torch.where(inside, project(images + eps * sign, images, eps, "Linf"), x)


def tiles(
    images: Float[Tensor, "batch c h w"], eps: float, norm: Norm, streams: RandomStreams
) -> Float[Tensor, "batch c h w"]:
    """Return the L2 or L1 start: five by five bumps of random sign, scaled to length eps."""
    _, c, h, w = images.shape
    s = max(min(h, w) // 5, 1)
    delta = torch.zeros_like(images)
    top, left = (h - h // s * s) // 2, (w - w // s * s) // 2
    drawn = streams.uniform(h // s, w // s, c + 1)
    for i in range(h // s):
        for j in range(w // s):
            sign, pattern = as_signs(drawn[:, i, j, :c, None, None]), bumps(s, drawn[:, i, j, c], norm)
            rows, columns = slice(top + i * s, top + (i + 1) * s), slice(left + j * s, left + (j + 1) * s)
            delta[:, :, rows, columns] = (pattern * sign).to(images)
    return _at_length(delta, images, eps, norm)


def moved_window(
    x: Float[Tensor, "batch c h w"],
    images: Float[Tensor, "batch c h w"],
    eps: float,
    norm: Norm,
    corners: tuple[Int[Tensor, "batch 2"], Int[Tensor, "batch 2"]],
    pattern: Float[Tensor, "batch 1 s s"],
    sign: Float[Tensor, "batch c 1 1"],
) -> Float[Tensor, "batch c h w"]:
    """Return the L2 or L1 proposal: the length of one window moves, with a bump, to another window.

    Args:
        x: present points.
        images: the images.
        eps: radius.
        norm: L2 or L1.
        corners: of the window that grows and of the one that is cleared: top and left of each.
        pattern: the bumps.
        sign: +1 or -1.
    """
    delta, s, p = x - images, pattern.shape[-1], ORDER[norm]
    channels, height, width = x.shape[1:]
    grows, cleared = (square(corner, s, height, width) for corner in corners)
    powers = delta.abs() ** p
    unused = (eps**p - powers.sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
    length = (unused + (powers * (grows | cleared)).sum((2, 3), keepdim=True)) ** (1 / p)
    if norm == "L1":
        length = length * channels  # as in the published attack: the projection, which is sparse, takes back the rest
    present = (powers * grows).sum((2, 3), keepdim=True) ** (1 / p)
    new = (_placed(pattern, corners[0], height, width) * sign + delta / (TINY + present)) * grows
    new = new / (TINY + (new.abs() ** p).sum((2, 3), keepdim=True) ** (1 / p)) * length
    return _at_length(torch.where(grows, new, torch.where(cleared, 0.0, delta)), images, eps, norm)


def square(corner: Int[Tensor, "batch 2"], s: int, height: int, width: int) -> Bool[Tensor, "batch 1 h w"]:
    """Return where each image's square of side s lies, from its corner: top and left."""
    down = torch.arange(height, device=corner.device) - corner[:, :1]
    right = torch.arange(width, device=corner.device) - corner[:, 1:]
    return (((down >= 0) & (down < s))[:, :, None] & ((right >= 0) & (right < s))[:, None, :])[:, None]


def _placed(
    pattern: Float[Tensor, "batch 1 s s"], corner: Int[Tensor, "batch 2"], height: int, width: int
) -> Float[Tensor, "batch 1 h w"]:
    """Return images that show their patterns with the corner there; arbitrary outside."""
    last, image = pattern.shape[-1] - 1, torch.arange(len(pattern), device=corner.device)[:, None, None]
    down = (torch.arange(height, device=corner.device) - corner[:, :1]).clamp(0, last)
    right = (torch.arange(width, device=corner.device) - corner[:, 1:]).clamp(0, last)
    return pattern[image, 0, down[:, :, None], right[:, None, :]][:, None]


def bumps(s: int, uniform: Float[Tensor, " batch"], norm: Norm) -> Float[Tensor, "batch 1 s s"]:
    """Return the pattern of section 3.4 for each image: two pyramids of opposite sign, together of length one.

    Args:
        s: side.
        uniform: a number in [0, 1) per image; below 1/2 one pyramid is above the other, else beside it.
        norm: of the length.
    """
    upper = s // 2
    pattern = torch.cat([_pyramid(upper, s, norm), -_pyramid(s - upper, s, norm)])
    pattern = pattern / torch.linalg.vector_norm(pattern, ORDER[norm])
    return torch.where(column(uniform) < 0.5, pattern, pattern.T)


def _pyramid(height: int, width: int, norm: Norm) -> Float32[Tensor, "height width"]:
    """Return the sum of 1/j^2 (in L1 1/j^4) for j from 1 + d to n + 1, scaled to length one.

    d is the distance from the middle in the maximum norm, n half of the longer side, rounded down.
    """
    n = max(height, width) // 2
    down = (torch.arange(height) - height // 2).abs()[:, None]
    right = (torch.arange(width) - width // 2).abs()[None, :]
    tails = (1 / torch.arange(1, n + 2, dtype=torch.float32) ** (4 if norm == "L1" else 2)).flip(0).cumsum(0).flip(0)
    values = tails[torch.maximum(down, right)]
    return values / torch.linalg.vector_norm(values, ORDER[norm]).clamp_min(TINY)


def _at_length(
    delta: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"], eps: float, norm: Norm
) -> Float[Tensor, "batch c h w"]:
    """Scale changes to length eps; in L1 only shorter ones, and longer ones lose their small entries."""
    scale = eps / (TINY + (delta.abs() ** ORDER[norm]).sum((1, 2, 3), keepdim=True) ** (1 / ORDER[norm]))
    return project(images + delta * (scale.clamp_min(1.0) if norm == "L1" else scale), images, eps, norm)
