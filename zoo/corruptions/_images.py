"""Helpers of all corruptions: parameters by severity, noise drawn image by image, conversion from bytes and back."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from zoo.errors import UserError

T = TypeVar("T")

SEVERITIES = (1, 2, 3, 4, 5)
LARGEST_SMALL = 64
"""Longest side in pixels at which images get the parameters of CIFAR-10-C."""
SMALLEST = 8


def obstacle(images: Tensor) -> str:
    """Return why images (B, C, H, W) of any dtype cannot be corrupted, or ``""``."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and min(images.shape[2:]) >= SMALLEST:
        return ""
    return f"corruptions take (B, C, H, W) with C 1 or 3 and H, W >= {SMALLEST}, not {tuple(images.shape)}"


def parameters(images: Tensor, severity: int, small: Sequence[T], large: Sequence[T]) -> T:
    """Return a corruption's parameters.

    Args:
        images: uint8 (B, C, H, W).
        severity: 1..5.
        small: for each severity, those of CIFAR-10-C.
        large: those of ImageNet-C.

    Raises:
        UserError: the severity is none of 1..5, or the images cannot be corrupted.
    """
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} is invalid: corruptions have severities 1 to {SEVERITIES[-1]}")
    if why := obstacle(images):
        raise UserError(why)
    if images.dtype != torch.uint8:
        raise UserError(f"corruptions take images as uint8, not as {images.dtype}: give (x * 255).round().byte()")
    return (small if max(images.shape[2:]) <= LARGEST_SMALL else large)[severity - 1]


def per_image(images: Tensor, draw: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
    """Draw noise once for each of B images and return each kind of it stacked, (B, ...), on their device.

    One image's noise is drawn before the next one's, and every image takes equally many random numbers. An image's
    noise therefore depends only on its place, not on the division into batches.
    """
    return [torch.stack(kind).to(images.device) for kind in zip(*(draw() for _ in images), strict=True)]


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 images as floats in [0, 1]."""
    return images.float().div(255)


def to_bytes(x: Tensor) -> Tensor:
    """Clip floats to [0, 1] and return them as the nearest of 256 grey levels, uint8."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
