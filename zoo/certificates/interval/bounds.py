"""Tensors in the graph with bounds on their entries."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Op = Callable[..., Any]
"""An operation of PyTorch, called with its arguments by name."""


@dataclass(frozen=True, eq=False)
class Interval:
    """A tensor that depends on the image: each entry lies between two numbers.

    Attributes:
        lower: the smaller ends, float64.
        upper: the larger ends, of the same shape.
        layer: the layer with weights that computed it, if a following matrix can be merged with that layer.
    """

    lower: Tensor
    upper: Tensor
    layer: "Layer | None" = None

    @property
    def centre(self) -> Tensor:
        """The middle of each interval."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of each interval."""
        return (self.upper - self.lower) / 2


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear or convolution layer and its input.

    It is kept so that consecutive linear layers can be merged: |W2 W1| r is never above |W2| |W1| r.

    Attributes:
        op: of input, weight and bias.
        input: of the layer.
        weight: (n, ...), float64; ungrouped.
        bias: (n,), or None.
    """

    op: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    input: Interval
    weight: Tensor
    bias: Tensor | None

    def output(self) -> Interval:
        """Return the layer's exact range: c' = W c + b, r' = |W| r for centre c and radius r."""
        centre = self.op(self.input.centre, self.weight, self.bias)
        radius = self.op(self.input.radius, self.weight.abs(), None)
        return Interval(centre - radius, centre + radius, self)

    def then(self, matrix: Tensor, bias: Tensor | None) -> "Layer":
        """Return this layer and y -> matrix y + bias along its outputs as one layer: (k, n) and (k,)."""
        weight = (matrix @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
        terms = [t for t in (bias, None if self.bias is None else matrix @ self.bias) if t is not None]
        return replace(self, weight=weight, bias=torch.stack(terms).sum(0) if terms else None)

    def scaled(self, scale: Tensor, shift: Tensor) -> "Layer":
        """Return this layer and y -> scale y + shift along its outputs as one layer: (n,) both."""
        weight = scale.view(-1, *[1] * (self.weight.ndim - 1)) * self.weight
        return replace(self, weight=weight, bias=shift if self.bias is None else scale * self.bias + shift)


def between(*candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest of some tensors, entry by entry; NaN where one is NaN."""
    lower = upper = candidates[0]
    for other in candidates[1:]:
        lower, upper = torch.minimum(lower, other), torch.maximum(upper, other)
    return lower, upper


def ends(x: Any) -> tuple[Any, Any]:
    """Return the two ends of an interval, or a constant twice."""
    return (x.lower, x.upper) if isinstance(x, Interval) else (x, x)
