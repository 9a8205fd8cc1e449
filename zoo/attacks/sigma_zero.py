"""sigma-zero: the minimum-norm attack in L0.

Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo: sigma-zero: gradient-based optimization of l0-norm adversarial
examples, ICLR 2025, arXiv 2402.01879.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.attacks._attacked_model import AttackedModel
from zoo.attacks._losses import margin
from zoo.attacks._minimum_norm import MinimumNorm
from zoo.attacks._threat import Norm, column, distance

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SIGMA = 1e-3
"""sigma of the smooth count d^2 / (d^2 + sigma)."""
STEP, LAST_STEP = 1.0, 0.1
"""eta: the step size at the start and at the end, between which it follows a cosine."""
THRESHOLD, CHANGE = 0.3, 0.01
"""tau at the start, below which a change is set to zero, and by how much it moves in units of eta."""
BETAS = 0.9, 0.999
"""Decay of Adam's moments."""
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class SigmaZero(MinimumNorm):
    """Gradient descent on a margin and a smooth count of the changed pixels, with a threshold that adapts.

    A change below the threshold is set to zero. The threshold rises while the image is misclassified and falls while it
    is not. The misclassified image with the fewest changed pixels is kept (algorithm 1 of the paper).
    """

    norms: ClassVar[tuple[Norm, ...]] = ("L0",)

    norm: Norm = "L0"
    """Norm of the perturbation: L0, the number of changed pixels."""
    steps: int = 1000
    """Gradient steps; 100 for a first look."""
    pixelwise: bool = True
    """Count a pixel once whatever its channels; false: minimise the changed channels of pixels, as the paper does."""

    def passes(self, classes: int) -> int:
        """Return one gradient per step."""
        return self.steps

    def nearest(
        self, attacked: AttackedModel, images: Float[Tensor, "batch c h w"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch c h w"]:
        """Return the misclassified points with the fewest changes."""
        found, fewest = images.clone(), torch.full_like(images[:, 0, 0, 0], torch.inf)
        delta, mean, square = (torch.zeros_like(images) for _ in range(3))
        threshold = torch.full_like(fewest, THRESHOLD)
        size = STEP
        for step in range(self.steps):
            x = (images + delta).clamp(0.0, 1.0)
            wrong, _, gradient = attacked.ascent(x, _capped_margin, labels)
            count = self._count(x, images)
            fewer = wrong & (count < fewest)
            found[fewer], fewest[fewer] = x[fewer], count[fewer]
            descent = self._count_gradient(delta) - gradient
            descent /= column(descent.flatten(1).abs().amax(1).clamp_min(TINY))
            mean.lerp_(descent, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(descent, descent, value=1 - BETAS[1])
            scale = (square / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(1e-8)
            delta.addcdiv_(mean, scale, value=-size / (1 - BETAS[0] ** (step + 1)))
            delta = (images + delta).clamp_(0.0, 1.0) - images
            size = LAST_STEP + (STEP - LAST_STEP) * (1 + math.cos(math.pi * step / self.steps)) / 2
            threshold = (threshold + torch.where(wrong, CHANGE * size, -CHANGE * size)).clamp(0.0, 1.0)
            delta = torch.where(self._largest(delta) < column(threshold), 0.0, delta)
        return found

    def _count(self, x: Float[Tensor, "batch c h w"], images: Float[Tensor, "batch c h w"]) -> Float[Tensor, " batch"]:
        if self.pixelwise:
            return distance(x, images, self.norm).to(images.dtype)
        return (x != images).flatten(1).sum(1).to(images.dtype)

    def _count_gradient(self, delta: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """Return the gradient of the mean over pixels (or numbers) of d^2 / (d^2 + sigma), equation 4 of the paper."""
        square = delta.square()
        number = delta[0].numel()
        if self.pixelwise:
            square, number = square.sum(1, keepdim=True), delta[0, 0].numel()
        return 2 * SIGMA / number * delta / (square + SIGMA).square()

    def _largest(self, delta: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch _ h w"]:
        return delta.abs().amax(1, keepdim=True) if self.pixelwise else delta.abs()


def _capped_margin(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the margin up to 0, beyond which a misclassified image is not pushed."""
    return margin(logits, labels).clamp_max(0.0)
