"""Rules of the layers with weights: each counts with the spectral norm of its matrix,
and consecutive linear layers are merged: the norm of a product is below the product of norms."""

import math
from typing import Any

from torch import Tensor

from zoo.certificates.lipschitz.activation import Activation, Shape
from zoo.certificates.lipschitz.windows import at, overlap, sliding


def linear(shape: Shape, input: Any, weight: Any, bias: Any = None, **_: Any) -> Activation | None:
    """Bound a linear layer by the norm of its matrix."""
    if not _only(input, weight, bias):
        return None
    matrix, axis = weight.detach().double()[None], len(shape) - 1
    return _merged(shape, input, matrix, axis) or Activation(shape, input.bound, matrix, axis)


def convolution(
    shape: Shape, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int, **_: Any
) -> Activation | None:
    """Bound a convolution by the norm of its matrix times that of copying all its windows (see `overlap`).

    y = W_mat unfold(x) at every output position, so ||y|| <= ||W_mat||_2 ||unfold(x)||, and unfolding
    repeats each pixel at most prod_axes overlap times. Groups act apart: the largest of their norms counts.
    """
    if not _only(input, weight, bias) or len(shape) != weight.ndim:  # an image without its batch
        return None
    kernel = weight.shape[2:]
    matrix = weight.detach().double().flatten(1).view(groups, weight.shape[0] // groups, -1)
    if set(kernel) == {1} and groups == 1 and (merged := _merged(shape, input, matrix, axis=1)):
        return merged
    copies = 1
    for axis, k in enumerate(kernel):
        size, out, d = input.shape[2 + axis], shape[2 + axis], at(dilation, axis)
        p = d * (k - 1) // 2 if padding == "same" else 0 if padding == "valid" else at(padding, axis)
        copies *= overlap(sliding(size, out, k, at(stride, axis), p, d))
    return Activation(shape, input.bound * math.sqrt(copies), matrix)


def batch_norm(
    shape: Shape,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    eps: float,
    training: bool = False,
    **_: Any,
) -> Activation | None:
    """Bound batch normalisation by max |gamma| / sqrt(var + eps), merged with the layer before it."""
    if training or running_var is None or not _only(input, weight, bias, running_mean, running_var):
        return None
    scale = (running_var.detach().double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.detach().double()
    if input.rows is not None and input.axis == 1:
        return Activation(shape, input.scale, scale.view(len(input.rows), -1, 1) * input.rows)
    return Activation(shape, input.bound * scale.abs().max().item())


def _only(input: Any, *others: Any) -> bool:
    """Return whether a layer's input depends on the image, and no other argument does."""
    return isinstance(input, Activation) and not any(isinstance(x, Activation) for x in others)


def _merged(shape: Shape, x: Activation, matrix: Tensor, axis: int) -> Activation | None:
    """Return x times a matrix as one product, if x is itself an ungrouped product along that axis."""
    if x.rows is None or x.axis != axis or len(x.rows) != 1:
        return None
    return Activation(shape, x.scale, matrix @ x.rows, axis)
