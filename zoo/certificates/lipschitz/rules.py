"""Lipschitz rules: how far each operation can stretch a distance, one entry of `RULES` per operation.

A rule gets the output's shape and the operation's arguments by name, activations as `Activation` and
everything else as it is, and returns the output's `Activation`, or None if no finite bound holds.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from zoo.certificates.graph import REARRANGE
from zoo.certificates.lipschitz import layers, pooling
from zoo.certificates.lipschitz.activation import Activation, Shape, spread

Rule = Callable[..., Activation | None]


def _times(constant: float) -> Rule:
    """Return the rule of an operation on one activation with a Lipschitz constant."""

    def rule(shape: Shape, /, **arguments: Any) -> Activation | None:
        first, *rest = [x for x in arguments.values() if isinstance(x, Activation)]
        return None if rest else Activation(shape, constant * first.bound)

    return rule


def _sum(shape: Shape, self: Any, other: Any, alpha: float = 1, **_: Any) -> Activation:
    terms = [abs(c) * spread(shape, x) for c, x in ((1, self), (alpha, other)) if isinstance(x, Activation)]
    return Activation(shape, sum(terms))


def _difference_from(shape: Shape, self: Any, other: Any, alpha: float = 1, **_: Any) -> Activation:
    return _sum(shape, other, self, alpha)


def _product(shape: Shape, self: Any, other: Any, **_: Any) -> Activation | None:
    if isinstance(self, Activation) and isinstance(other, Activation):
        return None
    x, factor = (self, other) if isinstance(self, Activation) else (other, self)
    return Activation(shape, spread(shape, x) * _largest(factor))


def _quotient(shape: Shape, self: Any, other: Any, rounding_mode: Any = None, **_: Any) -> Activation | None:
    if isinstance(other, Activation) or rounding_mode is not None:
        return None
    return Activation(shape, spread(shape, self) * _largest(1 / torch.as_tensor(other, dtype=torch.float64)))


def _largest(constant: Any) -> float:
    return torch.as_tensor(constant, dtype=torch.float64).detach().abs().max().item()


def _clamp(shape: Shape, /, **arguments: Any) -> Activation | None:
    """Bound a clamp, of the image to constants or of constants to the image; a constant may have the larger shape."""
    first, *rest = [x for x in arguments.values() if isinstance(x, Activation)]
    return None if rest else Activation(shape, spread(shape, first))


def _repeat(shape: Shape, self: Activation, **_: Any) -> Activation:
    return Activation(shape, spread(shape, self))


def _reduce(shape: Shape, self: Activation, exponent: float, **_: Any) -> Activation:
    """Bound a sum over N entries by sqrt(N), a mean by 1 / sqrt(N)."""
    return Activation(shape, self.bound * (math.prod(self.shape) / math.prod(shape)) ** exponent)


def _join(shape: Shape, tensors: list[Any], **_: Any) -> Activation:
    return Activation(shape, math.hypot(*(x.bound for x in tensors if isinstance(x, Activation))))


def _dropout(shape: Shape, input: Activation, train: bool, **_: Any) -> Activation | None:
    return None if train else Activation(shape, input.bound)


def _leaky_relu(shape: Shape, self: Activation, negative_slope: float = 0.01, **_: Any) -> Activation:
    return Activation(shape, self.bound * max(1.0, abs(negative_slope)))


def _prelu(shape: Shape, self: Any, weight: Any, **_: Any) -> Activation | None:
    if isinstance(weight, Activation):
        return None
    return Activation(shape, spread(shape, self) * max(1.0, _largest(weight)))


def _elu(
    shape: Shape, self: Activation, alpha: float = 1, scale: float = 1, input_scale: float = 1, **_: Any
) -> Activation | None:
    if input_scale < 0:  # exp(input_scale x) has no largest slope below 0
        return None
    return Activation(shape, self.bound * abs(scale) * max(1.0, abs(alpha * input_scale)))


def _softplus(shape: Shape, self: Activation, beta: float = 1, threshold: float = 20, **_: Any) -> Activation | None:
    """Bound softplus, unless its jump to the identity at the threshold, log(1 + e^-threshold) / beta, can be seen."""
    return Activation(shape, self.bound) if beta > 0 and threshold >= 20 else None


def _view(shape: Shape, self: Activation, dtype: Any = None, **_: Any) -> Activation | None:
    """Bound a change of shape; a view as another type reads the same bits as other numbers, and has no bound."""
    return Activation(shape, self.bound) if dtype is None else None


def _pad(shape: Shape, self: Activation, mode: str = "constant", **_: Any) -> Activation | None:
    return Activation(shape, self.bound) if mode == "constant" else None


CONTRACT = "relu relu6 hardtanh tanh neg abs amax amin"
"""Operations whose entries move no further than those of the input."""

RULES: dict[str, Rule] = {
    **dict.fromkeys((REARRANGE + CONTRACT).split(), _times(1.0)),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _clamp),
    "view": _view,
    "softplus": _softplus,
    # Largest derivatives, rounded up in the last digit.
    "sigmoid": _times(0.25),
    "hardsigmoid": _times(0.1667),
    "softmax": _times(0.5),  # the Jacobian diag(p) - p p^T has eigenvalues up to 1/2
    "gelu": _times(1.129),  # at sqrt(2); the tanh form's 1.12899 too
    "silu": _times(1.09984),
    "mish": _times(1.0885),
    "hardswish": _times(1.5),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "selu": _times(1.7581),
    "elu": _elu,
    "dropout": _dropout,
    "pad": _pad,
    "linear": layers.linear,
    "conv1d": layers.convolution,
    "conv2d": layers.convolution,
    "conv3d": layers.convolution,
    "batch_norm": layers.batch_norm,
    "_native_batch_norm_legit_no_training": layers.batch_norm,
    "add": _sum,
    "sub": _sum,
    "rsub": _difference_from,
    "mul": _product,
    "div": _quotient,
    "expand": _repeat,
    "repeat": _repeat,
    "mean": partial(_reduce, exponent=-0.5),
    "sum": partial(_reduce, exponent=0.5),
    "cat": _join,
    "stack": _join,
    "max_pool2d": pooling.max_pool,
    "max_pool2d_with_indices": pooling.max_pool,
    "avg_pool2d": pooling.average_pool,
    "adaptive_avg_pool2d": pooling.adaptive_average_pool,
    "adaptive_max_pool2d": pooling.adaptive_max_pool,
}
