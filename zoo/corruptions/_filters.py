"""Linear filters. Sums run in one order whatever the batch, so that an image's result does not depend on it."""

import math

import torch
from torch import Tensor

from zoo.corruptions._borders import Border, inside, picked


def smoothed(x: Tensor, sigma: float, reach: float, border: Border) -> Tensor:
    """Smooth x (..., H, W) by a Gaussian of deviation sigma in pixels, cut off at ``reach`` deviations.

    Each axis is one matrix, because sigma may be as large as the image. The products are taken in fp64: matrix
    products in fp32 differ in their last bit with the batch's size, and on a GPU may be computed in TF32.
    """
    rows, columns = (_smoothing(size, sigma, reach, border).to(x.device) for size in x.shape[-2:])
    return (rows @ x.double() @ columns.T).to(x)


def _smoothing(size: int, sigma: float, reach: float, border: Border) -> Tensor:
    """Return the matrix (size, size), fp64, that smooths a column of that size."""
    far = int(reach * sigma + 0.5)
    steps = torch.arange(-far, far + 1)
    weights = gaussian(steps.double(), sigma)
    sources = inside(torch.arange(size)[:, None] + steps, size, border)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add(1, sources, weights.expand(size, -1))


def gaussian(steps: Tensor, sigma: float) -> Tensor:
    """Return weights at distances from the middle, with sum one; with sigma 0 only the middle has weight."""
    weights = (-0.5 * (steps / max(sigma, 1e-3)).square()).exp()
    return weights / weights.sum()


def filtered(x: Tensor, kernel: Tensor, border: Border) -> Tensor:
    """Correlate x (B, C, H, W) with a kernel of odd sides."""
    (h, w), (down, right) = x.shape[2:], (size // 2 for size in kernel.shape)
    rows = inside(torch.arange(-down, h + down, device=x.device), h, border)
    columns = inside(torch.arange(-right, w + right, device=x.device), w, border)
    wide, total = x[:, :, rows][:, :, :, columns], torch.zeros_like(x)
    for i, j in kernel.nonzero().tolist():
        total += kernel[i, j].item() * wide[:, :, i : i + h, j : j + w]
    return total


def motion_blurred(x: Tensor, radius: int, sigma: float, angle: Tensor) -> Tensor:
    """Smear each of x (B, C, H, W) along a line, as ImageMagick's motion blur does.

    The weights are those of half a Gaussian over 2 radius + 1 pixels, from the pixel itself in one direction. Places on
    the line are rounded to pixels, and the edge is repeated outside.

    Args:
        x: images.
        radius: in pixels.
        sigma: deviation of the Gaussian in pixels.
        angle: of each line in degrees, (B,), from the columns' direction towards that of the rows.
    """
    h, w = x.shape[2:]
    turn = angle.double()[:, None] * (math.pi / 180)
    rows, columns, total = torch.arange(h, device=x.device), torch.arange(w, device=x.device), torch.zeros_like(x)
    for step, weight in enumerate(gaussian(torch.arange(2.0 * radius + 1), sigma).tolist()):
        down, right = ((step * part - 0.5).ceil().long() for part in (turn.sin(), turn.cos()))
        total += weight * picked(x, (rows + down)[:, :, None], (columns + right)[:, None, :], "edge")
    return total
