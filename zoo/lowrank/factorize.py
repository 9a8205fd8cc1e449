"""Replace layers of any model by factorized ones and back, and report the form of each layer with its reason."""

import copy
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import ClassVar, Literal

from torch import nn

from zoo.errors import UserError, unknown_name
from zoo.lowrank.layers import MERGE_ABOVE, Factorized, FactorizedConv2d, FactorizedLinear, Init, factorized_layers
from zoo.lowrank.tucker import TuckerConv2d, has_tucker_form, inner_rank, tucker_size
from zoo.runtime.complexity import Positions

Convolution = Literal["matrix", "tucker"]
"""The form of a factorized k x k convolution: its weight a matrix (k x k, 1 x 1), or Tucker-2 (1 x 1, k x k, 1 x 1)."""
Ranks = dict[str, int]
"""The rank of each factorized layer, by the layer's name in the model."""


@dataclass(frozen=True)
class Layer:
    """One linear or convolution layer of a dense model.

    Attributes:
        name: its path in the model.
        kind: its class name.
        shape: its weight's shape.
        obstacle: why it cannot be factorized, or ``""``.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    obstacle: str
    sides: ClassVar[int] = 1
    """How many times the scores of its components hold the weight, see `zoo.lowrank.saliency.Saliency.scores`."""

    @property
    def n(self) -> int:
        """Rows of the weight matrix: outputs."""
        return self.shape[0]

    @property
    def m(self) -> int:
        """Columns of the weight matrix: inputs, times the kernel's area."""
        return math.prod(self.shape[1:])

    @property
    def full_rank(self) -> int:
        """The largest rank, min(n, m)."""
        return min(self.n, self.m)

    def factorized_size(self, rank: int) -> int:
        """Return the number of weights in the two factors U S and V^T at a rank."""
        return rank * (self.n + self.m)

    def factorized_macs(self, rank: int, at: Positions) -> int:
        """Return the multiply-accumulates of the two factors at a rank, for one image."""
        return at.outputs * self.factorized_size(rank)

    def deployed_size(self, rank: int) -> int:
        """Return the number of deployed weights at a rank: those of the product if its factors do not pay."""
        factors, product = self.factorized_size(rank), self.n * self.m
        return factors if factors <= MERGE_ABOVE * product else product


@dataclass(frozen=True)
class TuckerLayer(Layer):
    """A convolution that is factorized in Tucker-2 form."""

    sides: ClassVar[int] = 2

    def factorized_size(self, rank: int) -> int:
        """Return the number of weights in the three kernels at a rank."""
        return tucker_size(self.shape, rank)

    def factorized_macs(self, rank: int, at: Positions) -> int:
        """Return the multiply-accumulates of the three kernels at a rank, for one image: the first reads the input."""
        first = self.shape[1] * inner_rank(rank, *self.shape[:2])
        return at.inputs * first + at.outputs * (self.factorized_size(rank) - first)


def in_form(layers: Iterable[Layer], convolution: Convolution) -> list[Layer]:
    """Return the layers of a dense model, to be factorized in a form; layers without that form become matrices."""
    return [TuckerLayer(*astuple(x)) if convolution == "tucker" and has_tucker_form(x.shape) else x for x in layers]


def layers_of(factorized: dict[str, Factorized]) -> list[Layer]:
    """Return the description of the dense layers that factorized layers replace, by name."""
    return [
        (TuckerLayer if isinstance(x, TuckerConv2d) else Layer)(name, type(x).__name__, tuple(x.weight_shape), "")
        for name, x in factorized.items()
    ]


def _obstacle(module: nn.Module) -> str:
    if type(module) is nn.Linear:
        return ""
    if type(module) is not nn.Conv2d:
        return f"{type(module).__name__} computes its weight or padding in its own way"
    if module.groups == module.in_channels and module.groups > 1:
        return "depthwise"
    if module.groups > 1:
        return f"grouped ({module.groups} groups)"
    if module.padding_mode != "zeros":
        return f"pads with {module.padding_mode}"
    return ""


def shared_parameters(model: nn.Module) -> dict[str, str]:
    """Return, for each module that shares a parameter with another, the text "shares its weight with NAME"."""
    owners: dict[nn.Parameter, list[tuple[str, str]]] = {}
    for name, module in model.named_modules():
        for own, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(parameter, []).append((name, own))
    found: dict[str, str] = {}
    for places in owners.values():
        for name, own in places:
            others = [other for other, _ in places if other != name]
            if others:
                found.setdefault(name, f"shares its {own} with {others[0] or 'the model'}")
    return found


def weight_layers(model: nn.Module) -> list[Layer]:
    """List every linear and 2-d convolution layer of a dense model (subclasses too), in its order."""
    shared = shared_parameters(model)
    return [
        Layer(name, type(module).__name__, tuple(module.weight.shape), _obstacle(module) or shared.get(name, ""))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


def _replace(model: nn.Module, swap: dict[nn.Module, nn.Module]) -> None:
    """Replace each module by its value, in its mode, under every name it has (a shared module stays shared)."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children() skips a child's second name
            if child in swap:
                setattr(parent, name, swap[child].train(child.training))


def factorize(model: nn.Module, ranks: Ranks, init: Init = "weights", convolution: Convolution = "matrix") -> nn.Module:
    """Replace, in place, each named layer by its factorization at the given rank; return the model.

    Each layer is in the mode, training or not, of the one that it replaces.

    Raises:
        UserError: a name is not a layer of the model, the layer cannot be factorized, or the rank is out of range.
    """
    layers = {layer.name: layer for layer in weight_layers(model)}
    swap: dict[nn.Module, nn.Module] = {}
    for name, rank in ranks.items():
        if name not in layers:
            raise unknown_name("layer", name, layers)
        layer, module = layers[name], model.get_submodule(name)
        if layer.obstacle:
            raise UserError(f"layer {name!r} cannot be factorized: {layer.obstacle}")
        if not 1 <= rank <= layer.full_rank:
            raise UserError(f"layer {name!r} ({layer.n} x {layer.m}): rank {rank} is not in 1..{layer.full_rank}")
        if isinstance(module, nn.Conv2d):
            is_tucker = convolution == "tucker" and has_tucker_form(layer.shape)
            swap[module] = (TuckerConv2d if is_tucker else FactorizedConv2d)(module, rank, init)
        elif isinstance(module, nn.Linear):
            swap[module] = FactorizedLinear(module, rank, init)
    _replace(model, {old: new.train(old.training) for old, new in swap.items()})
    return model


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of the model in its deployed form: S merged into U, factors that do not pay multiplied out."""
    model = copy.deepcopy(model)
    _replace(model, {layer: layer.fold() for _, layer in factorized_layers(model)})
    return model


@dataclass(frozen=True)
class LayerReport:
    """The outcome for one layer: its weight shape, its rank (None: dense) and the reason."""

    name: str
    kind: str
    shape: tuple[int, ...]
    rank: int | None
    note: str


def report(layers: list[Layer], ranks: Ranks) -> list[LayerReport]:
    """Return, for each layer of the dense model, its rank or the reason why it stayed dense."""
    rows = []
    for layer in layers:
        rank = ranks.get(layer.name)
        if rank is None:
            note = layer.obstacle or f"factors would not pay at {layer.n} x {layer.m}"
        elif layer.factorized_size(rank) >= layer.n * layer.m:
            note = "full rank: constrained, not compressed"
        else:
            note = f"{layer.factorized_size(rank) / (layer.n * layer.m):.0%} of its weights"
        rows.append(LayerReport(layer.name, layer.kind, layer.shape, rank, note))
    return rows


__all__ = ["Factorized", "Layer", "LayerReport", "Ranks", "factorize", "fold", "report", "weight_layers"]
