"""Sparse-RS: the black-box attack on a few pixels.

Croce, Andriushchenko, Singh, Flammarion, Hein: Sparse-RS: a versatile framework for query-efficient sparse black-box
adversarial attacks, AAAI 2022, arXiv 2006.12834.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._random import RandomStreams
from zoo.attacks._random_search import State, random_search
from zoo.attacks._threat import Norm

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SHARE = 0.3
"""alpha_init: the share of the chosen pixels that the first query moves."""
BUDGET = 10_000
"""Queries for which the schedule of shares was made; it is stretched to others."""
SHARES = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))
"""Queries after which alpha_init is divided, and by what."""


@dataclass(frozen=True, kw_only=True)
class SparseRS(Attack):
    """Random search over which pixels to change and to which corner of the colour cube; it uses only logits.

    Every query resets some of the eps chosen pixels and chooses as many others (algorithm 1 of the paper).
    """

    black_box: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("L0",)

    norm: Norm = "L0"
    """Norm of the perturbation: L0, the number of changed pixels."""
    queries: int = 5000
    """Forward passes for each restart of an image."""
    restarts: int = 1
    """Searches of each image until one succeeds."""
    seed: int = 0
    """Seed of the pixels and colours, which depend only on it and on the image."""

    def passes(self, classes: int) -> int:
        """Return one pass per query."""
        return self.queries * self.restarts

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the points with the largest margin of a wrong class that were found."""
        streams = RandomStreams.of(images, self.seed, "sparse_rs")
        pixels = min(int(eps), images[0, 0].numel())

        def search(restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            x, own = images[rows], streams[rows].at(restart)
            chosen = torch.zeros(len(x), x[0, 0].numel(), dtype=torch.bool, device=x.device)
            start = _moved(x, (x, chosen), pixels, own.at(0))
            propose = partial(self._propose, pixels)
            return random_search(attacked, x, labels[rows], start, propose, self.queries, own)

        return in_turn(attacked, images, labels, [partial(search, restart) for restart in range(self.restarts)])

    def _propose(
        self, pixels: int, query: int, state: State, images: Float[Tensor, "batch c h w"], streams: RandomStreams
    ) -> State:
        others = images[0, 0].numel() - pixels
        return _moved(images, state, min(moved_pixels(query, self.queries, pixels), others), streams)


def moved_pixels(query: int, queries: int, pixels: int) -> int:
    """Return how many of the chosen pixels a query moves, counted from 0."""
    at = (1 + query) * BUDGET // queries
    divisor = next((over for after, over in reversed(SHARES) if at > after), 1)
    return max(int(SHARE / divisor * pixels), 1)


def _moved(images: Float[Tensor, "batch c h w"], state: State, count: int, streams: RandomStreams) -> State:
    """Return the state after ``count`` chosen pixels are reset and as many others get a random colour.

    A state is the present points and which pixels are chosen, (batch, h w). Of fewer chosen pixels than ``count``
    all are reset.
    """
    x, chosen = state
    number, channels = chosen.shape[1], x.shape[1]
    drawn = streams.uniform(number + channels * number).to(x.device)
    order, colours = drawn[:, :number], (drawn[:, number:] < 0.5).view(-1, channels, number).to(x.dtype)
    reset = chosen & _first(torch.where(chosen, order, 2.0), count)
    added = ~chosen & _first(torch.where(chosen, 2.0, order), count)
    flat, own = x.flatten(2), images.flatten(2)
    colours = torch.where((colours == own).all(1, keepdim=True), 1 - colours, colours)  # every chosen pixel differs
    new = torch.where(added[:, None], colours, torch.where(reset[:, None], own, flat))
    return new.view_as(x), (chosen & ~reset) | added


def _first(order: Float[Tensor, "batch d"], count: int) -> Tensor:
    """Return which entries are among the ``count`` smallest of their row: bool (batch, d)."""
    places = order.topk(min(count, order.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, places, True)
