"""Pixels outside an image, and resampling of images between their pixels."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["edge", "reflect", "symmetric"]
"""The outside: copies of the edge pixel, or the image mirrored with its edge pixel once (reflect) or twice."""


def inside(index: Tensor, size: int, border: Border) -> Tensor:
    """Bring indices of any size to 0..size-1; size >= 2."""
    if border == "edge":
        return index.clamp(0, size - 1)
    last = 2 * size - (2 if border == "reflect" else 1)
    period = last if border == "reflect" else last + 1
    index = index.remainder(period)
    return torch.minimum(index, last - index)


def picked(x: Tensor, rows: Tensor, columns: Tensor, border: Border) -> Tensor:
    """Return x (B, C, H, W) with pixel (rows, columns) in each place; both are (B, H, W) after broadcasting."""
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    index = batch, inside(rows, x.shape[2], border), inside(columns, x.shape[3], border)
    return x.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2)


def sampled(x: Tensor, rows: Tensor, columns: Tensor, border: Border) -> Tensor:
    """Return x (B, C, H, W) as seen at real places, (B, H, W) each, in pixels, by bilinear interpolation."""
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None].to(x), (columns - left)[:, None].to(x)
    i, j = top.long(), left.long()
    upper = (1 - right) * picked(x, i, j, border) + right * picked(x, i, j + 1, border)
    lower = (1 - right) * picked(x, i + 1, j, border) + right * picked(x, i + 1, j + 1, border)
    return (1 - down) * upper + down * lower


def zoomed(x: Tensor, factor: float) -> Tensor:
    """Enlarge the middle of x (B, C, H, W), factor >= 1, bilinearly with corner pixels on corner pixels."""
    kept = [math.ceil(size / factor) for size in x.shape[2:]]
    grown = [round(size * factor) for size in kept]
    middle = F.interpolate(_middle(x, kept), grown, mode="bilinear", align_corners=True)
    return _middle(middle, list(x.shape[2:]))


def _middle(x: Tensor, sizes: list[int]) -> Tensor:
    top, left = ((have - want) // 2 for have, want in zip(x.shape[2:], sizes, strict=True))
    return x[:, :, top : top + sizes[0], left : left + sizes[1]]
