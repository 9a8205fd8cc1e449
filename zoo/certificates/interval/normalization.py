"""Rules of normalisation layers."""

import math
from typing import Any

from torch import Tensor

from zoo.certificates.interval.bounds import Interval, between


def batch_norm(
    op: Any, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, eps: float, **flags: Any
) -> Interval | None:
    """Bound batch normalisation with running statistics, merged with the layer before it."""
    if flags.get("training") or running_var is None or not _only(input, weight, bias, running_mean, running_var):
        return None
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    found = _affine(input, *(_per_channel(t, input.lower.ndim) for t in (scale, shift)))
    layer = input.layer
    if layer is None or layer.weight.ndim != input.lower.ndim:  # a layer along another axis
        return found
    return Interval(found.lower, found.upper, layer.scaled(scale, shift))


def batch_norm_no_training(op: Any, **arguments: Any) -> list[Interval | None] | None:
    """Bound the form of batch normalisation that returns two more results."""
    found = batch_norm(op, **arguments)
    return None if found is None else [found, None, None]


def layer_norm(
    op: Any, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, **_: Any
) -> Interval | None:
    """Bound layer normalisation over the last axes."""
    if eps < 0 or not _only(input, weight, bias):
        return None
    return _affine(_standardized(input, list(range(-len(normalized_shape), 0)), eps), weight, bias)


def group_norm(
    op: Any, input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, **_: Any
) -> Interval | None:
    """Bound group normalisation."""
    if eps < 0 or not _only(input, weight, bias):
        return None
    shape = input.lower.shape
    grouped = Interval(*(x.reshape(shape[0], num_groups, -1) for x in (input.lower, input.upper)))
    found = _standardized(grouped, [-1], eps)
    whole = Interval(found.lower.view(shape), found.upper.view(shape))
    return _affine(whole, *(_per_channel(t, len(shape)) for t in (weight, bias)))


def _only(input: Any, *others: Any) -> bool:
    """Return whether a layer's input depends on the image, and no other argument does."""
    return isinstance(input, Interval) and not any(isinstance(x, Interval) for x in others)


def _standardized(x: Interval, axes: list[int], eps: float) -> Interval:
    """Bound d / sqrt(mean d^2 + eps), d = x - mean x over some axes: the range of d, of its squares, and sqrt(n - 1).

    Row i of I - 1/n has the radius (1 - 1/n) r_i + sum_{j != i} r_j / n = (1 - 2/n) r_i + mean r. As d sums to
    zero, d_i^2 <= (n - 1)/n sum d^2, so no entry of the result is above sqrt(n - 1).
    """
    n = math.prod(x.lower.shape[axis] for axis in axes)
    centre = x.centre - x.centre.mean(axes, keepdim=True)
    radius = (1 - 2 / n) * x.radius + x.radius.mean(axes, keepdim=True)
    least = (centre.abs() - radius).clamp_min(0).square().mean(axes, keepdim=True)
    greatest = (centre.abs() + radius).square().mean(axes, keepdim=True)
    scales = (least + eps).rsqrt(), (greatest + eps).rsqrt()
    lower, upper = between(*(d * scale for d in (centre - radius, centre + radius) for scale in scales))
    most = math.sqrt(n - 1)
    return Interval(lower.clamp(-most, most), upper.clamp(-most, most))


def _per_channel(values: Tensor | None, ndim: int) -> Tensor | None:
    """Return values of the channels, (C,), in a shape that broadcasts along axis 1."""
    return None if values is None else values.view(-1, *[1] * (ndim - 2))


def _affine(x: Interval, scale: Tensor | None, shift: Tensor | None) -> Interval:
    lower, upper = (x.lower, x.upper) if scale is None else between(x.lower * scale, x.upper * scale)
    return Interval(lower, upper) if shift is None else Interval(lower + shift, upper + shift)
