"""Square: the black-box attack of AutoAttack.

Andriushchenko, Croce, Flammarion, Hein: Square attack: a query-efficient black-box adversarial attack via
random search, ECCV 2020, arXiv 1912.00049; in L1 as in Croce, Hein: Mind the box, ICML 2021, arXiv 2103.01208.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._random import RandomStreams, as_signs
from zoo.attacks._random_search import State, random_search
from zoo.attacks._squares import bumps, moved_window, side, signed_square, square, stripes, tiles
from zoo.attacks._threat import Norm

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search with squares that shrink; it uses only logits, so masked gradients do not stop it."""

    black_box: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")

    queries: int = 5000
    """Forward passes for each restart of an image."""
    restarts: int = 1
    """Searches of each image until one succeeds."""
    seed: int = 0
    """Seed of the squares, which depend only on it and on the image."""

    def passes(self, classes: int) -> int:
        """Return one pass per query."""
        return self.queries * self.restarts

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the points with the largest margin of a wrong class that were found."""
        streams = RandomStreams.of(images, self.seed, "square")

        def search(restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            return self._search(attacked, images[rows], labels[rows], eps, streams[rows].at(restart))

        return in_turn(attacked, images, labels, [partial(search, restart) for restart in range(self.restarts)])

    def _search(
        self,
        attacked: AttackedModel,
        images: Float[Tensor, "batch c h w"],
        labels: Int[Tensor, " batch"],
        eps: float,
        streams: RandomStreams,
    ) -> Float[Tensor, "batch c h w"]:
        """Search once from a random start."""
        own = streams.at(0)
        start = stripes(images, eps, own) if self.norm == "Linf" else tiles(images, eps, self.norm, own)

        def propose(query: int, state: State, images: Tensor, streams: RandomStreams) -> State:
            return (self._propose(query, state[0], images, eps, streams),)

        return random_search(attacked, images, labels, (start,), propose, self.queries, streams)

    def _propose(
        self,
        query: int,
        x: Float[Tensor, "batch c h w"],
        images: Float[Tensor, "batch c h w"],
        eps: float,
        streams: RandomStreams,
    ) -> Float[Tensor, "batch c h w"]:
        """Draw a separate square for each image, or in L2 and L1 two windows of an odd side if the image has room."""
        c, height, width = x.shape[1:]
        s = side(query, height, width, smallest=1 if self.norm == "Linf" else min(3, height, width))
        if self.norm != "Linf" and s % 2 == 0:
            s = min(s + 1, height, width)
        drawn = streams.uniform(c + 5)
        sign = as_signs(drawn[:, :c, None, None]).to(x)
        places = torch.tensor([height - s + 1, width - s + 1])
        grows, cleared = ((drawn[:, at : at + 2] * places).long().to(x.device) for at in (c, c + 2))
        if self.norm == "Linf":
            return signed_square(x, images, eps, square(grows, s, height, width), sign)
        pattern = bumps(s, drawn[:, c + 4], self.norm).to(x)
        return moved_window(x, images, eps, self.norm, (grows, cleared), pattern, sign)
