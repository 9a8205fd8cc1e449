"""Rules of pooling along the last two axes."""

import math
from typing import Any

from zoo.certificates.lipschitz.activation import Activation, Shape
from zoo.certificates.lipschitz.windows import Windows, adaptive, at, mean_norm, overlap, sliding


def _pool_windows(
    shape: Shape, x: Activation, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1
) -> list[Windows]:
    steps = stride or kernel_size
    return [
        sliding(size, out, at(kernel_size, a), at(steps, a), at(padding, a), at(dilation, a))
        for a, (size, out) in enumerate(zip(x.shape[-2:], shape[-2:], strict=True))
    ]


def max_pool(
    shape: Shape, self: Activation, kernel_size: Any, stride: Any, padding: Any, dilation: Any, **_: Any
) -> Activation:
    """Bound max-pooling: a window's maximum moves no further than the window, windows overlap."""
    windows = _pool_windows(shape, self, kernel_size, stride, padding, dilation)
    return Activation(shape, self.bound * math.sqrt(math.prod(map(overlap, windows))))


def average_pool(
    shape: Shape,
    self: Activation,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    count_include_pad: bool,
    divisor_override: int | None = None,
    **_: Any,
) -> Activation:
    """Bound average-pooling by its exact norm."""
    norm = 1 / abs(divisor_override or 1)
    for axis, windows in enumerate(_pool_windows(shape, self, kernel_size, stride, padding)):
        size, k, p = self.shape[axis - 2], at(kernel_size, axis), at(padding, axis)
        starts = [o * at(stride or kernel_size, axis) - p for o in range(len(windows))]
        padded = [min(start + k, size + p) - start for start in starts]
        divisors = padded if count_include_pad else [len(w) for w in windows]
        norm *= mean_norm(windows, size, [1] * len(windows) if divisor_override else divisors)
    return Activation(shape, self.bound * norm)


def adaptive_average_pool(shape: Shape, self: Activation, **_: Any) -> Activation:
    """Bound adaptive (and global) average-pooling by its exact norm."""
    norm = 1.0
    for size, out in zip(self.shape[-2:], shape[-2:], strict=True):
        windows = adaptive(size, out)
        norm *= mean_norm(windows, size, [len(w) for w in windows])
    return Activation(shape, self.bound * norm)


def adaptive_max_pool(shape: Shape, self: Activation, **_: Any) -> Activation:
    """Bound adaptive max-pooling by the overlap of its windows."""
    sizes = zip(self.shape[-2:], shape[-2:], strict=True)
    return Activation(shape, self.bound * math.sqrt(math.prod(overlap(adaptive(*s)) for s in sizes)))
