"""Patch-RS: Sparse-RS on a square patch, whose place and pixels are searched.

Croce, Andriushchenko, Singh, Flammarion, Hein: Sparse-RS: a versatile framework for query-efficient sparse black-box
adversarial attacks, AAAI 2022, arXiv 2006.12834, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isqrt, sqrt
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._random import RandomStreams
from zoo.attacks._random_search import State, random_search
from zoo.attacks._squares import square
from zoo.attacks._threat import Norm

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SHARE = 0.4
"""alpha_init: the share of the patch that the first query recolours."""
BUDGET = 10_000
"""Queries for which the schedule of shares was made; it is stretched to others."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share is halved."""
MOVES = 4
"""Every so many queries the patch moves instead of changing its colours."""
REACH = 0.75
"""Longest move at the start, in units of the image's side; it falls to nothing."""
FIRST_SQUARES = 100
"""Random squares that the first patch is made of."""


@dataclass(frozen=True, kw_only=True)
class PatchRS(Attack):
    """Random search over the place and the colours of a square patch of at most eps pixels; it uses only logits."""

    black_box: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("L0",)

    norm: Norm = "L0"
    """Norm of the perturbation: L0, the number of changed pixels; the patch's side is the root of it, rounded down."""
    queries: int = 5000
    """Forward passes for each restart of an image."""
    restarts: int = 1
    """Searches of each image until one succeeds."""
    seed: int = 0
    """Seed of the patches, which depend only on it and on the image."""

    def passes(self, classes: int) -> int:
        """Return one pass per query."""
        return self.queries * self.restarts

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the points with the largest margin of a wrong class that were found."""
        streams = RandomStreams.of(images, self.seed, "patch_rs")
        side = min(isqrt(int(eps)), *images.shape[2:])

        def search(restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            x, own = images[rows], streams[rows].at(restart)
            patch = _first_patch(x, side, own.at(0, 0))
            corner = (own.at(0, 1).uniform(2).to(x.device) * _places(x, side)).long()
            start = (_placed(x, patch, corner), patch, corner)
            return random_search(attacked, x, labels[rows], start, self._propose, self.queries, own)

        return in_turn(attacked, images, labels, [partial(search, restart) for restart in range(self.restarts)])

    def _propose(self, query: int, state: State, images: Float[Tensor, "batch c h w"], streams: RandomStreams) -> State:
        _, patch, corner = state
        left = 1 - (1 + query) / self.queries
        reach = int(REACH * left * images.shape[2])
        if (1 + query) % MOVES == 0 and reach:
            move = ((2 * reach + 1) * streams.uniform(2)).long().to(corner.device) - reach
            corner = torch.minimum((corner + move).clamp_min(0), _places(images, patch.shape[-1]) - 1)
        else:
            one_channel = left < 0.5 and self._side(query, patch.shape[-1]) == 1
            patch = _recoloured(patch, self._side(query, patch.shape[-1]), one_channel, streams)
        return _placed(images, patch, corner), patch, corner

    def _side(self, query: int, whole: int) -> int:
        """Return the side of the part of the patch that a query recolours."""
        at = (1 + query) * BUDGET / self.queries
        return max(int(sqrt(SHARE / 2 ** sum(at > after for after in HALVINGS)) * whole), 1)


def _places(images: Float[Tensor, "batch c h w"], side: int) -> Int[Tensor, " 2"]:
    """Return how many rows and columns the corner of a patch may lie in."""
    return torch.tensor(images.shape[2:], device=images.device) - side + 1


def _placed(
    images: Float[Tensor, "batch c h w"], patch: Float[Tensor, "batch c s s"], corner: Int[Tensor, "batch 2"]
) -> Float[Tensor, "batch c h w"]:
    """Return the images with their patches."""
    side, width = patch.shape[-1], images.shape[3]
    down, right = (torch.arange(side, device=corner.device) + corner[:, i : i + 1] for i in (0, 1))
    places = (down[:, :, None] * width + right[:, None, :]).flatten(1)
    flat = images.flatten(2).scatter(2, places[:, None].expand(-1, images.shape[1], -1), patch.flatten(2))
    return flat.view_as(images)


def _first_patch(
    images: Float[Tensor, "batch c h w"], side: int, streams: RandomStreams
) -> Float[Tensor, "batch c s s"]:
    """Return patches of random squares, one over the other, of sides up to the root of the patch's."""
    channels = images.shape[1]
    patch = images.new_zeros(len(images), channels, side, side)
    drawn = streams.uniform(FIRST_SQUARES, channels + 3).to(images.device)
    for size, where, colour in zip(*(t.unbind(1) for t in drawn.split([1, 2, channels], 2)), strict=True):
        sides = 1 + (size * isqrt(side)).long()
        corner = (where * (side - sides + 1)).long()
        inside = torch.stack([square(c[None], int(s), side, side)[0] for c, s in zip(corner, sides, strict=True)])
        patch = torch.where(inside, (colour < 0.5).to(patch)[:, :, None, None], patch)
    return patch


def _recoloured(
    patch: Float[Tensor, "batch c s s"], side: int, one_channel: bool, streams: RandomStreams
) -> Float[Tensor, "batch c s s"]:
    """Return patches with a square in a random colour, or one pixel with another value of one channel."""
    channels, whole = patch.shape[1], patch.shape[-1]
    drawn = streams.uniform(channels + 3).to(patch.device)
    inside = square((drawn[:, :2] * (whole - side + 1)).long(), side, whole, whole)
    if one_channel:
        channel = (drawn[:, 2] * channels).long()
        own = torch.arange(channels, device=patch.device) == channel[:, None]
        return torch.where(inside & own[:, :, None, None], 1 - patch, patch)
    colour = (drawn[:, 3:, None, None] < 0.5).to(patch)
    same = (torch.where(inside, patch, colour) == colour).flatten(1).all(1)
    colour = torch.where(same[:, None, None, None], 1 - colour, colour)  # a query that changes nothing tells nothing
    return torch.where(inside, colour, patch)
