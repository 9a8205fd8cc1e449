"""Random changes of images that preserve their class."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """Add at most 0.2 to every pixel."""
    return (images + 0.2 * u.view(-1, 1, 1, 1)).clamp(0, 1)


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """Scale the distance from the image's mean by at most 20 %."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (mean + (images - mean) * (1 + 0.2 * u.view(-1, 1, 1, 1))).clamp(0, 1)


def rotation(images: Tensor, u: Tensor) -> Tensor:
    """Turn by at most ten degrees; the border repeats the edge."""
    angle = u * math.radians(10)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    aspect = images.shape[3] / images.shape[2]  # coordinates are -1..1 along either side
    return _affine(images, torch.stack([cos, -sin / aspect, zero, sin * aspect, cos, zero], 1))


def translation(images: Tensor, u: Tensor) -> Tensor:
    """Move sideways by at most a tenth of the width; the border repeats the edge."""
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    return _affine(images, torch.stack([one, zero, 0.2 * u, zero, one, zero], 1))


TRANSFORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "rotation": rotation,
    "translation": translation,
}
"""Each maps images (B, C, H, W) in [0, 1] and parameters (B,) in -1..1 to images of the same shape."""


def drawn(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return one uniform parameter in -1..1 per image: (B,)."""
    return 2 * torch.rand(len(images), generator=generator).to(images) - 1


def _affine(images: Tensor, matrices: Tensor) -> Tensor:
    grid = F.affine_grid(matrices.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
