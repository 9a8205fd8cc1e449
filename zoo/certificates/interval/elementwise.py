"""Rules of operations on single entries, of sums and products, and of those that only move entries."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo.certificates.interval.bounds import Interval, Op, between, ends

Rule = Callable[..., Any]


def increasing(op: Op, **arguments: Any) -> Any:
    """Bound an operation that does not decrease in any entry, by its values at the ends.

    Everything that moves entries, averages them or takes a maximum is one.
    """
    if "dtype" in arguments:
        arguments["dtype"] = None  # computed in float64 whatever the graph says
    lower = op(**pytree.tree_map(lambda x: ends(x)[0], arguments))
    upper = op(**pytree.tree_map(lambda x: ends(x)[1], arguments))
    return pytree.tree_map(Interval, lower, upper)


def view(op: Op, self: Any, size: Any = None, **_: Any) -> Interval | None:
    """Bound a change of shape; the memory layout may differ from that of the traced graph, so it may copy."""
    return None if size is None else Interval(self.lower.reshape(size), self.upper.reshape(size))


def maximum_and_index(op: Op, **arguments: Any) -> list[Interval | None]:
    """Bound a maximum that comes with its index, for which there is no bound."""
    values, _ = increasing(op, **arguments)
    return [values, None]


def average_pool(op: Op, divisor_override: int | None = None, **arguments: Any) -> Any:
    """Bound average-pooling, which decreases in every entry if its divisor is negative."""
    if divisor_override is not None and divisor_override < 0:
        return None
    return increasing(op, divisor_override=divisor_override, **arguments)


def turning(at: float) -> Rule:
    """Return the rule of a function that is monotone on either side of a point: its extremes are at the ends or there.

    Args:
        at: the point, where the function may turn.
    """

    def rule(op: Op, self: Any, **arguments: Any) -> Interval | None:
        if not isinstance(self, Interval) or any(isinstance(x, Interval) for x in arguments.values()):
            return None
        nearest = self.lower.clamp_min(at).minimum(self.upper)
        return Interval(*between(*(op(x, **arguments) for x in (self.lower, nearest, self.upper))))

    return rule


def gelu(op: Op, self: Any, approximate: str = "none") -> Interval | None:
    """Bound GELU, whose two forms turn at different points."""
    at = -0.7517915246935644 if approximate == "none" else -0.7524614220710162
    return turning(at)(op, self, approximate=approximate)


def softplus(op: Op, self: Any, beta: float = 1, threshold: float = 20) -> Interval | None:
    """Bound softplus, which falls by log(1 + e^-threshold) / beta where PyTorch switches to the identity."""
    if beta <= 0 or threshold < 0:
        return None
    fall = math.log1p(math.exp(-threshold)) / beta
    lower, upper = (op(x, beta=beta, threshold=threshold) for x in ends(self))
    return Interval(lower - fall, upper + fall)


def power(op: Op, self: Any, exponent: Any) -> Interval | None:
    """Bound a positive power of intervals; other powers have a pole."""
    if not isinstance(self, Interval) or isinstance(exponent, Interval | Tensor) or exponent <= 0:
        return None
    return turning(0.0)(op, self, exponent=exponent)


def add(op: Op, self: Any, other: Any, alpha: float = 1) -> Interval:
    """Bound self + alpha other."""
    low, high = ends(other)
    low, high = (alpha * low, alpha * high) if alpha >= 0 else (alpha * high, alpha * low)
    return Interval(ends(self)[0] + low, ends(self)[1] + high)


def subtract(op: Op, self: Any, other: Any, alpha: float = 1) -> Interval:
    """Bound self - alpha other."""
    return add(op, self, other, -alpha)


def subtract_from(op: Op, self: Any, other: Any, alpha: float = 1) -> Interval:
    """Bound other - alpha self."""
    return add(op, other, self, -alpha)


def multiply(op: Op, self: Any, other: Any) -> Interval:
    """Bound a product by the products of the ends: its extremes are at corners."""
    return Interval(*between(*(x * y for x in ends(self) for y in ends(other))))


def divide(op: Op, self: Any, other: Any, rounding_mode: Any = None) -> Interval | None:
    """Bound a division by a constant."""
    if isinstance(other, Interval) or rounding_mode is not None:
        return None
    return Interval(*between(*(x / other for x in ends(self))))


def softmax(op: Op, self: Any, dim: int, **_: Any) -> Interval:
    """Bound softmax: each probability between e^l / sum e^u and e^u / sum e^l over its axis."""
    low = torch.exp(self.lower - self.upper.logsumexp(dim, keepdim=True))
    high = torch.exp(self.upper - self.lower.logsumexp(dim, keepdim=True))
    return Interval(low, high.clamp_max(1.0))


def unchanged(op: Op, **arguments: Any) -> Any:
    """Pass an interval on, unless its type changes to integers."""
    x, *others = arguments.values()
    dtypes = [y if isinstance(y, torch.dtype) else y.dtype for y in others if isinstance(y, torch.dtype | Tensor)]
    return x if all(dtype.is_floating_point for dtype in dtypes) else None


def dropout(op: Op, input: Any, p: float, train: bool) -> Any:
    """Pass an interval on in eval mode."""
    return None if train else input
