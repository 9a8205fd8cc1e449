"""Rules of products with weights, by centre and radius."""

from typing import Any

import torch
from torch import Tensor

from zoo.certificates.interval.bounds import Interval, Layer, Op


def linear(op: Op, input: Any, weight: Any, bias: Any = None) -> Interval | None:
    """Bound a linear layer, merged with one right before it."""
    if isinstance(weight, Interval) or isinstance(bias, Interval):
        return None
    if (before := input.layer) is not None and before.weight.ndim == 2:
        return before.then(weight, bias).output()
    return Layer(lambda x, w, b: op(x, w, b), input, weight, bias).output()


def convolution(op: Op, input: Any, weight: Any, bias: Any = None, groups: int = 1, **geometry: Any) -> Interval | None:
    """Bound a convolution of any geometry; a pointwise one is merged with the convolution right before it."""
    if isinstance(weight, Interval) or isinstance(bias, Interval):
        return None
    if (before := input.layer) is not None and before.weight.ndim == weight.ndim and groups == 1:
        stays = geometry["stride"], geometry["padding"]
        if weight[0, 0].numel() == 1 and all(_all(value, n) for value, n in zip(stays, (1, 0), strict=True)):
            return before.then(weight.flatten(1), bias).output()

    def apply(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        y: Tensor = op(x, w, b, groups=groups, **geometry)
        return y

    found = Layer(apply, input, weight, bias).output()
    return found if groups == 1 else Interval(found.lower, found.upper)


def matmul(op: Op, **factors: Any) -> Interval | None:
    """Bound a matrix product whose factors may both be intervals.

    (C1 + D1)(C2 + D2) with |D| <= R lies within |C1| R2 + R1 |C2| + R1 R2 of C1 C2 (Rump, Fast and parallel
    interval arithmetic, BIT 1999).
    """
    first, second, *others = factors.values()
    if others:  # a type of the result, in which it may overflow
        return None
    c1, r1 = _centre_and_radius(first)
    c2, r2 = _centre_and_radius(second)
    centre, radius = op(c1, c2), op(c1.abs(), r2) + op(r1, c2.abs() + r2)
    return Interval(centre - radius, centre + radius)


def _centre_and_radius(x: Any) -> tuple[Tensor, Tensor]:
    return (x.centre, x.radius) if isinstance(x, Interval) else (x, torch.zeros_like(x))


def _all(setting: Any, value: int) -> bool:
    """Whether a per-axis setting, which may be one number or a word, is a given number on all axes."""
    return setting == value or (isinstance(setting, list | tuple) and all(s == value for s in setting))
