"""The weights that factorized layers apply, computed once for several forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from zoo.lowrank.layers import factorized_layers

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@contextmanager
def applied_once(model: nn.Module) -> Iterator[None]:
    """Compute the applied weights of each factorized layer once for all forward passes inside, in autocast's type.

    The factors must not change inside. Gradients equal those of computing the weights in each pass, up to that type's
    roundings. On a GPU small layers are bound by the number of operators, which this reduces.
    """
    layers = [layer for _, layer in factorized_layers(model) if layer._applied is None]
    try:
        for layer in layers:
            layer._applied = tuple(as_computed(weight) for weight in layer._weights())
        yield
    finally:
        for layer in layers:
            layer._applied = None


def as_computed(weight: Float[Tensor, "n c *kernel"]) -> Float[Tensor, "n c *kernel"]:
    """Return a weight in the type and layout of its multiplication."""
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        weight = weight.to(torch.get_autocast_dtype(device))
    return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight
