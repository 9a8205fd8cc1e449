"""Apply or cut out the leading components of factorized layers: a smaller network inside a larger one."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from zoo.lowrank.applied_once import as_computed
from zoo.lowrank.factorize import Ranks
from zoo.lowrank.layers import Factorized, factorized_layers


def prefix(layer: Factorized, rank: int) -> Factorized:
    """Return a layer of the leading components of another, whose factors are slices of the other's.

    With orthonormal U and V it is the projection of the weight on the spans of their leading columns: in Tucker-2 form
    on both sides; of a matrix with a lower triangular S on that of U alone, since U_k^T W = [S_kk 0] V^T.

    Args:
        layer: as it is trained.
        rank: 1 to the layer's.

    Raises:
        ValueError: the rank is out of range.
    """
    if not 1 <= rank <= layer.rank:
        raise ValueError(f"prefix {rank} of a layer of rank {layer.rank}")
    r, s = layer.ranks_at(rank)
    sliced: dict[str, Any] = {"U": layer.U[:, :r], "S": layer.S[:r, :s], "V": layer.V[:, :s]}
    shallow = copy.copy(layer)
    shallow._parameters = layer._parameters | sliced  # slices, not parameters of their own
    return shallow


@contextmanager
def prefixes_applied(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Apply only the leading components of each factorized layer inside; gradients go to the layers' own factors.

    The weights are computed once, when the context is entered, and without a graph where gradients are off.

    Args:
        model: not compiled: a compiled network computes its weights itself.
        ranks: by the layers' names in the model; a layer that is not named keeps all its components.
    """
    layers = dict(factorized_layers(model))
    before = {name: layer._applied for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            smaller = prefix(layer, ranks.get(name, layer.rank))
            layer._applied = tuple(as_computed(weight) for weight in smaller._weights())
        yield
    finally:
        for name, layer in layers.items():
            layer._applied = before[name]


def cut_(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Remove all but the leading components of the named factorized layers, in place, and return the model."""
    for name, layer in factorized_layers(model):
        smaller = prefix(layer, ranks.get(name, layer.rank))
        for factor in "USV":
            value = getattr(smaller, factor).detach().clone()
            setattr(layer, factor, nn.Parameter(value, getattr(layer, factor).requires_grad))
    return model
