"""Square: the black-box attack of AutoAttack.

Andriushchenko, Croce, Flammarion, Hein: Square attack: a query-efficient black-box adversarial attack via
random search, ECCV 2020, arXiv 1912.00049.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.attacks._base import Attack
from zoo.attacks._losses import margin
from zoo.attacks._squares import bump, moved_window, side, signed_square, signs, square, stripes, tiles
from zoo.attacks._threat import column
from zoo.attacks._victim import Victim, in_turn


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search with squares that shrink; asks for logits only, so masked gradients do not stop it."""

    queries: int = 5000
    """Forward passes for each restart of an image."""
    restarts: int = 1
    """Searches of each image until one succeeds."""
    seed: int = 0
    """Seed of the squares."""

    def passes(self, classes: int) -> int:
        """One per query."""
        return self.queries * self.restarts

    def perturb(self, victim: Victim, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return the points of largest margin of a wrong class that were found."""
        generator = torch.Generator().manual_seed(self.seed)

        def search(rows: Tensor) -> Tensor:
            return self._search(victim, images[rows], labels[rows], eps, generator)

        return in_turn(victim, images, labels, [search] * self.restarts)

    def _search(self, victim: Victim, images: Tensor, labels: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Keep each proposal that raises the margin; an image that falls leaves the batch."""
        x = (stripes if self.norm == "Linf" else tiles)(images, eps, generator)
        value = margin(victim.estimate(x), labels)
        found, rows = x.clone(), torch.arange(len(images), device=images.device)
        for query in range(self.queries):
            gone = value > 0
            if bool(gone.any()):
                value[gone] = margin(victim.logits(x[gone]), labels[gone])  # the estimate may be wrong
                gone = value > 0
                found[rows[gone]] = x[gone]
                rows, x, value, images, labels = (t[~gone] for t in (rows, x, value, images, labels))
            if not len(rows):
                return found
            proposed = self._propose(query, x, images, eps, generator)
            margins = margin(victim.estimate(proposed), labels)
            better = margins > value
            x = torch.where(column(better), proposed, x)
            value = torch.where(better, margins, value)
        found[rows] = x
        return found

    def _propose(self, query: int, x: Tensor, images: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw a square of its own for each image."""
        b, c, height, width = x.shape
        s = side(query, height, width, smallest=1 if self.norm == "Linf" else min(3, height, width))
        places = torch.tensor([height - s + 1, width - s + 1])

        def corner() -> Tensor:
            return (torch.rand(b, 2, generator=generator) * places).long().to(x.device)

        sign = signs((b, c, 1, 1), generator).to(x)
        if self.norm == "Linf":
            return signed_square(x, images, eps, square(corner(), s, height, width), sign)
        s = s if s % 2 else min(s + 1, height, width)
        return moved_window(x, images, eps, (corner(), corner()), bump(s, generator).to(x), sign)
