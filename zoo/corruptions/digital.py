"""Digital: artefacts of image processing. For arguments and errors see `zoo.corruptions.Corruption`."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.corruptions._borders import sampled
from zoo.corruptions._filters import smoothed
from zoo.corruptions._images import LARGEST_SMALL, parameters, per_image, to_bytes, to_unit

IMAGENET_SIDE = 244 / 224
"""The ImageNet-C parameters of elastic_transform are for a side of 244 pixels but were applied to 224."""


def contrast(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move every number towards the mean of its channel in its image; nothing is random."""
    kept = parameters(images, severity, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
    x = to_unit(images)
    mean = x.mean((2, 3), keepdim=True)
    return to_bytes((x - mean) * kept + mean)


def elastic_transform(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Move three points by random steps and the image with them (an affine map), then every pixel by smooth noise.

    Lengths are the published shares of the image's side, of the shorter one where sides differ. OpenCV's warp,
    which rounds to 1/32 pixel, is replaced by exact bilinear interpolation.
    """
    far, sigma, corner = parameters(
        images,
        severity,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    )
    h, w = images.shape[2:]
    side = min(h, w) * (IMAGENET_SIDE if max(h, w) > LARGEST_SMALL else 1.0)
    jumps, noise = per_image(
        images, lambda: [torch.rand((3, 2), generator=generator), torch.rand((2, h, w), generator=generator)]
    )
    rows, columns = _before_affine(side * corner * (2 * jumps.double() - 1), h, w)
    x = sampled(to_unit(images), rows, columns, "reflect")
    down, right = (side * far * smoothed(2 * noise.double() - 1, side * sigma, 3, "symmetric")).unbind(1)
    rows, columns = torch.arange(h, device=x.device)[:, None], torch.arange(w, device=x.device)
    return to_bytes(sampled(x, rows + down, columns + right, "symmetric"))


def pixelate(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Shrink the image by area means and enlarge it again by copies of its pixels; nothing is random.

    Pillow's box filter is reimplemented without its rounding between columns and rows: a grey level at most.
    """
    scale = parameters(images, severity, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
    h, w = images.shape[2:]
    smaller = int(h * scale), int(w * scale)
    rows, columns = (_shrinking(*sizes).to(images.device) for sizes in zip((h, w), smaller, strict=True))
    small = to_bytes(rows @ to_unit(images).double() @ columns.T)
    # Each pixel becomes a copy of the larger one in which its middle lies.
    up, across = ((2 * torch.arange(n) + 1) * m // (2 * n) for n, m in zip((h, w), smaller, strict=True))
    return small[:, :, up.to(images.device)][:, :, :, across.to(images.device)]


def jpeg_compression(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Compress each image as JPEG with Pillow and read it back; nothing is random."""
    quality = parameters(images, severity, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))
    pictures = images.permute(0, 2, 3, 1).cpu().numpy()
    found = np.stack([_through_jpeg(picture, quality) for picture in pictures])
    return torch.from_numpy(found).view(pictures.shape).permute(0, 3, 1, 2).contiguous().to(images.device)


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _before_affine(jumps: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Return where each pixel was before the affine map that moves three points, rows and columns (B, H, W) each.

    Args:
        jumps: of the points, columns and rows in pixels, (B, 3, 2), fp64.
        h, w: the image's sides; the points are corners of a square in its middle.
    """
    points = torch.tensor([[1, 1], [1, -1], [-1, -1]]) * (min(h, w) // 3) + torch.tensor([w // 2, h // 2])
    points = points.to(jumps)
    after = torch.cat([points + jumps, torch.ones_like(jumps[:, :, :1])], 2)
    back = torch.linalg.solve(after, points.expand_as(jumps))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    pixels = torch.stack([column, row, torch.ones_like(row)], 2).to(jumps)
    columns, rows = (pixels.flatten(0, 1) @ back).unflatten(1, (h, w)).unbind(3)
    return rows, columns


def _shrinking(size: int, small: int) -> Tensor:
    """Return the matrix (small, size), fp64, of means over the pixels whose middles lie in each larger pixel."""
    # From the larger pixel's middle to the smaller one's, in units in which both are whole numbers.
    away = (2 * torch.arange(size) + 1) * small - (2 * torch.arange(small)[:, None] + 1) * size
    within = ((away > -size) & (away <= size)).double()
    return within / within.sum(1, keepdim=True)
