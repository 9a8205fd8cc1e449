"""Frame-RS: Sparse-RS on a frame around the image.

Croce, Andriushchenko, Singh, Flammarion, Hein: Sparse-RS: a versatile framework for query-efficient sparse black-box
adversarial attacks, AAAI 2022, arXiv 2006.12834, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel, in_turn
from zoo.attacks._base import Attack
from zoo.attacks._random import RandomStreams
from zoo.attacks._random_search import State, random_search
from zoo.attacks._squares import square
from zoo.attacks._threat import Norm
from zoo.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

SHARE = 0.5
"""alpha_init: decides with the frame's width how large the first recoloured squares are."""


@dataclass(frozen=True, kw_only=True)
class FrameRS(Attack):
    """Random search over the colours of a frame of at most eps pixels along the image's border; it uses only logits."""

    black_box: ClassVar[bool] = True
    norms: ClassVar[tuple[Norm, ...]] = ("L0",)

    norm: Norm = "L0"
    """Norm of the perturbation: L0, the number of changed pixels; the frame is the widest that has no more."""
    queries: int = 5000
    """Forward passes for each restart of an image."""
    restarts: int = 1
    """Searches of each image until one succeeds."""
    seed: int = 0
    """Seed of the frames, which depend only on it and on the image."""

    def passes(self, classes: int) -> int:
        """Return one pass per query."""
        return self.queries * self.restarts

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return the points with the largest margin of a wrong class that were found.

        Raises:
            UserError: no frame has so few pixels.
        """
        streams = RandomStreams.of(images, self.seed, "frame_rs")
        height, width = images.shape[2:]
        wide = frame_width(int(eps), height, width)
        frame = _frame(wide, height, width).to(images.device)

        def search(restart: int, rows: Int[Tensor, " standing"]) -> Float[Tensor, "standing c h w"]:
            x, own = images[rows], streams[rows].at(restart)
            start = torch.where(frame, (own.at(0).uniform(*x.shape[1:]) < 0.5).to(x), x)
            propose = partial(self._propose, wide, frame)
            return random_search(attacked, x, labels[rows], (start,), propose, self.queries, own)

        return in_turn(attacked, images, labels, [partial(search, restart) for restart in range(self.restarts)])

    def _propose(
        self,
        wide: int,
        frame: Bool[Tensor, "h w"],
        query: int,
        state: State,
        images: Float[Tensor, "batch c h w"],
        streams: RandomStreams,
    ) -> State:
        """Recolour a square within the frame; later one pixel, and at last one channel of it."""
        [x] = state
        channels, height, width = x.shape[1:]
        left = 1 - (1 + query) / self.queries
        side = max(3 * ceil(max(left - 0.5, 0.0) * SHARE * wide**2), 1)
        drawn = streams.uniform(channels + 4).to(x.device)
        pixels = frame.nonzero()
        corner = pixels[(drawn[:, 0] * len(pixels)).long()]
        towards = (drawn[:, 1:3] < 0.5).long() * (side - 1)  # the square lies to either side of its pixel
        inside = square(corner - towards, side, height, width) & frame
        if left < 0.25:
            channel = torch.arange(channels, device=x.device) == (drawn[:, 3:4] * channels).long()
            return (torch.where(inside & channel[:, :, None, None], 1 - x, x),)
        colour = (drawn[:, 4:, None, None] < 0.5).to(x)
        same = (torch.where(inside, x, colour) == colour).flatten(1).all(1)
        colour = torch.where(same[:, None, None, None], 1 - colour, colour)  # a query without a change tells nothing
        return (torch.where(inside, colour, x),)


def frame_width(pixels: int, height: int, width: int) -> int:
    """Return the width of the widest frame of at most so many pixels.

    Raises:
        UserError: there is none, not even of one pixel.
    """

    def area(wide: int) -> int:
        return height * width - max(height - 2 * wide, 0) * max(width - 2 * wide, 0)

    fitting = [wide for wide in range(1, (min(height, width) + 1) // 2 + 1) if area(wide) <= pixels]
    if not fitting:
        raise UserError(f"a frame of {height} x {width} pixels has at least {area(1)}: L0 eps {pixels} is too small")
    return fitting[-1]


def _frame(wide: int, height: int, width: int) -> Bool[Tensor, "h w"]:
    frame = torch.ones(height, width, dtype=torch.bool)
    frame[wide : height - wide, wide : width - wide] = False
    return frame
