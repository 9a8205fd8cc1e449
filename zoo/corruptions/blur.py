"""Blur: every pixel becomes a mean of others. For arguments and errors see `zoo.corruptions.Corruption`."""

import math

import numpy as np
import torch
from torch import Tensor

from zoo.corruptions._borders import zoomed
from zoo.corruptions._filters import filtered, gaussian, motion_blurred, smoothed
from zoo.corruptions._images import parameters, per_image, to_bytes, to_unit


def defocus_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Average over a disk, as a lens out of focus does; nothing is random.

    The kernel has room for the disk's soft edge and sum one; the published ones of radius 8 and 10 are mirrored
    at their ends instead and brighten images by one per cent.
    """
    radius, softness = parameters(
        images,
        severity,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    )
    return to_bytes(filtered(to_unit(images), _disk(radius, softness), "reflect"))


def glass_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Smooth, let pixels take the values of neighbours, and smooth again: an image seen through frosted glass.

    The paper describes a shuffle, but its images were made by a swap that overwrote one pixel and left the other
    unchanged; this function does the same.
    """
    sigma, reach, rounds = parameters(
        images,
        severity,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    )
    shape = (rounds, 2, *images.shape[2:])
    (moves,) = per_image(images, lambda: [torch.randint(-reach, reach, shape, generator=generator)])
    x = smoothed(to_unit(images), sigma, 4, "edge")
    for move in moves.unbind(1):
        sources = _sources(move, reach)[:, None].expand(-1, x.shape[1], -1)
        x = x.flatten(2).gather(2, sources).view_as(x)
    return to_bytes(smoothed(x, sigma, 4, "edge"))


def motion_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Smear each image along a line that lies within 45 degrees of horizontal.

    ImageMagick's routine is reimplemented, see `zoo.corruptions._filters.motion_blurred`.
    """
    radius, sigma = parameters(
        images,
        severity,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    )
    (chance,) = per_image(images, lambda: [torch.rand((), generator=generator)])
    return to_bytes(motion_blurred(to_unit(images), radius, sigma, 90 * chance - 45))


def zoom_blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Average the image and its enlargements, as a camera that moves towards its object does; nothing is random."""
    end, step = parameters(
        images,
        severity,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    )
    x = to_unit(images)
    # NumPy's rounding errors decide whether the end is one of the factors, and to which size half a pixel is rounded.
    factors = np.arange(1, end, step).tolist()
    # The first factor is 1, so the image itself counts twice.
    total = x.clone()
    for factor in factors:
        total += zoomed(x, factor)
    return to_bytes(total / (len(factors) + 1))


def _disk(radius: float, softness: float) -> Tensor:
    """Return a disk's kernel, smoothed by a Gaussian of 3 by 3 pixels (5 by 5 for radii above 8), with sum one."""
    soft = 1 if radius <= 8 else 2
    far = math.floor(radius)
    steps = torch.arange(-far - soft, far + soft + 1)
    disk = (steps.square()[:, None] + steps.square() <= radius**2).double()
    weights = gaussian(torch.arange(-soft, soft + 1).double(), softness)
    kernel = filtered(disk[None, None], weights[:, None] * weights, "edge")[0, 0]
    return kernel / kernel.sum()


def _sources(moves: Tensor, reach: int) -> Tensor:
    """Return whose former value each pixel ends with, after each in turn has taken the value of a neighbour.

    The pixels at least ``reach`` away from the border take their turns from the last to the first. A neighbour that had
    its turn earlier already holds another neighbour's value, and so on. Such chains are followed to their ends by
    doubling instead of by thousands of single steps.

    Args:
        moves: down and right to each pixel's neighbour, (B, 2, H, W), in -reach..reach-1.
        reach: the longest move.

    Returns:
        Indices of pixels, (B, H W).
    """
    h, w = moves.shape[2:]
    place = torch.arange(h * w, device=moves.device)
    row, column = place // w, place % w
    moved = (row > reach) & (row <= h - reach) & (column > reach) & (column <= w - reach)
    step = moves[:, 0].flatten(1) * w + moves[:, 1].flatten(1)
    neighbour = place + torch.where(moved, step, 0)
    end = torch.where((neighbour > place) & moved[neighbour], neighbour, place)
    while not torch.equal(end, further := end.gather(1, end)):
        end = further
    return neighbour.gather(1, end)
