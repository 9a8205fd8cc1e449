"""Attacks that look for the nearest misclassified image: one search gives the accuracy at every radius."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.attacks._attacked_model import AttackedModel, Gradients
from zoo.attacks._base import Attack
from zoo.attacks._threat import column, distance, largest_distance

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int, Integer


@dataclass(frozen=True, kw_only=True)
class MinimumNorm(Attack):
    """An attack without a radius: an image is robust at eps if nothing nearer than that was found."""

    @abstractmethod
    def nearest(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch c h w"]:
        """Return the nearest misclassified images that were found; an image without one is returned unchanged.

        Args:
            attacked: the model under attack.
            images: one or more, all classified correctly.
            labels: class indices.
        """

    def perturb(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"], eps: float
    ) -> Float[Tensor, "batch c h w"]:
        """Return what `nearest` found within eps, and other images unchanged."""
        return next(self.curve(attacked, images, labels, [eps]))

    def curve(
        self,
        attacked: AttackedModel,
        images: Float[Tensor, "batch c h w"],
        labels: Int[Tensor, " batch"],
        eps: Sequence[float],
    ) -> Iterator[Float[Tensor, "batch c h w"]]:
        """Search once, and yield the same points wherever they lie within a radius."""
        if not eps:
            return
        found = self.nearest(attacked, images, labels)
        moved = distance(found, images, self.norm)
        for e in eps:
            yield torch.where(column(moved <= e), found, images)

    def distances(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch c h w"],
        labels: Integer[Tensor, " batch"],
        *,
        batch_size: int = 250,
        tick: Callable[[int], None] | None = None,
        gradients: Gradients = "fp32",
    ) -> Float64[Tensor, " batch"]:
        """Return the distance of the nearest misclassified image found: 0 without an attack, inf where none was found.

        The image is robust, as far as this attack can tell, at every smaller radius. Arguments as in a call.
        """
        whole = largest_distance(self.norm, images[0].numel())
        outcome = self(model, images, labels, [whole], batch_size=batch_size, tick=tick, gradients=gradients)
        moved = distance(outcome.adversarial[0], images, self.norm)
        return torch.where(outcome.robust[0], torch.inf, moved)
