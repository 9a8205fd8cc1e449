"""Sliding windows along one axis: which input positions each output position sees."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

Windows = list[list[int]]
"""The input positions in each window, padding left out."""


def sliding(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Windows:
    """Return the windows of a convolution or pooling: o stride - padding + k dilation, k < kernel."""
    return [[p for k in range(kernel) if 0 <= (p := o * stride - padding + k * dilation) < size] for o in range(out)]


def adaptive(size: int, out: int) -> Windows:
    """Return the windows of adaptive pooling: floor(o size/out) up to ceil((o + 1) size/out)."""
    return [list(range(o * size // out, -(-(o + 1) * size // out))) for o in range(out)]


def overlap(windows: Windows) -> int:
    """Return the largest number of windows that share a position: at most ceil(kernel/stride) without dilation.

    Copying every window of x repeats the entry x_p once per window with p in it, so the squared norm of
    the copies is at most ``overlap`` times that of x; along several axes the overlaps multiply.
    """
    return max(Counter(p for window in windows for p in window).values(), default=0)


def mean_norm(windows: Windows, size: int, divisors: list[int]) -> float:
    """Return the 2-norm of the matrix that sums each window and divides by its divisor.

    Pooling over several axes is the Kronecker product of these matrices: its norm is the product.
    """
    matrix: Tensor = torch.zeros(len(windows), size, dtype=torch.float64)
    for row, window, divisor in zip(matrix, windows, divisors, strict=True):
        row[window] = 1 / divisor
    return torch.linalg.matrix_norm(matrix, 2).item()


def at(value: Any, axis: int) -> int:
    """Return a per-axis setting that may be one number, or a list of one, for all axes."""
    if isinstance(value, int):
        return value
    return int(value[axis] if len(value) > 1 else value[0])
