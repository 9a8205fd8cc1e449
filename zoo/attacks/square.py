"""Square: the black-box attack of AutoAttack.

Andriushchenko, Croce, Flammarion, Hein: Square attack: a query-efficient black-box adversarial attack via
random search, ECCV 2020, arXiv 1912.00049.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._losses import margin
from zoo.attacks._random import RandomStreams, as_signs
from zoo.attacks._squares import bumps, moved_window, side, signed_square, square, stripes, tiles
from zoo.attacks._threat import column

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search with squares that shrink; it uses only logits, so masked gradients do not stop it."""

    black_box: ClassVar[bool] = True

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
        """Keep each proposal that raises the margin; a misclassified image leaves the batch."""
        x = (stripes if self.norm == "Linf" else tiles)(images, eps, streams.at(0))
        value = margin(attacked.estimate(x), labels)
        found, rows = x.clone(), torch.arange(len(images), device=images.device)
        for query in range(self.queries):
            gone = value > 0
            if bool(gone.any()):
                value[gone] = margin(attacked.logits(x[gone]), labels[gone])  # the estimate may be wrong
                gone = value > 0
                found[rows[gone]] = x[gone]
                rows, x, value, images, labels = (t[~gone] for t in (rows, x, value, images, labels))
                streams = streams[~gone]
            if not len(rows):
                return found
            proposed = self._propose(query, x, images, eps, streams.at(1 + query))
            margins = margin(attacked.estimate(proposed), labels)
            better = margins > value
            x = torch.where(column(better), proposed, x)
            value = torch.where(better, margins, value)
        found[rows] = x
        return found

    def _propose(
        self,
        query: int,
        x: Float[Tensor, "batch c h w"],
        images: Float[Tensor, "batch c h w"],
        eps: float,
        streams: RandomStreams,
    ) -> Float[Tensor, "batch c h w"]:
        """Draw a separate square for each image, or in L2 two windows of an odd side if the image has room."""
        c, height, width = x.shape[1:]
        s = side(query, height, width, smallest=1 if self.norm == "Linf" else min(3, height, width))
        if self.norm == "L2" and s % 2 == 0:
            s = min(s + 1, height, width)
        drawn = streams.uniform(c + 5)
        sign = as_signs(drawn[:, :c, None, None]).to(x)
        places = torch.tensor([height - s + 1, width - s + 1])
        grows, cleared = ((drawn[:, at : at + 2] * places).long().to(x.device) for at in (c, c + 2))
        if self.norm == "Linf":
            return signed_square(x, images, eps, square(grows, s, height, width), sign)
        return moved_window(x, images, eps, (grows, cleared), bumps(s, drawn[:, c + 4]).to(x), sign)
