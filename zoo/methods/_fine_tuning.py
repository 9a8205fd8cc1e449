"""Base of the methods that fine-tune a trained network by few numbers."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import nn
from torch.nn.utils import parametrize

from zoo.backbone import ends
from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import Convolution, Layer, LayerReport, Ranks, factorize, fold, in_form, shared_parameters
from zoo.lowrank.layers import Factorized, computes_factors
from zoo.lowrank.rank_change import diagonalize_
from zoo.methods._base import Method


@dataclass(frozen=True, kw_only=True)
class FineTuningMethod(Method):
    """A trained network that keeps its weights, and trains few numbers which change them.

    What changes a weight is a parametrization of PyTorch on the tensor itself, so it means the same for every kind of
    layer, padding and stride, and is merged exactly. The classifier trains as a whole, since its classes may be new;
    normalisation layers keep scale and shift, and follow the new data with their running statistics.
    """

    fine_tunes: ClassVar[bool] = True

    convolution: Convolution = "matrix"
    """Form of the factorized k x k convolutions of the network it starts from; --init sets it."""

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Return no ranks: weights that are not those of a run are dense, and stay so."""
        if budget is not None:
            raise UserError(
                "fine-tuning keeps the form of the network it starts from: leave the budget out, and compress first, "
                "by `zoo compress` or another method"
            )
        return {}

    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Give the model the form of the network it starts from."""
        return factorize(model, ranks, convolution=self.convolution)

    @abstractmethod
    def adapters(self, layer: nn.Module) -> dict[str, nn.Module]:
        """Return what computes tensors of a layer from their frozen values, by the tensors' names.

        At first each returns what it is given, so that the network answers as the one it starts from.

        Args:
            layer: linear, a convolution, or factorized in the basis of its singular vectors; its tensors may be
                rearranged, as long as its weight does not change.
        """

    def adapt_(self, model: nn.Module) -> None:
        """Freeze the model but for its classifier, and attach what is trained, in place."""
        classifier = ends(model)[1]
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name in classifier:
            model.get_submodule(name).requires_grad_(True)
        for name, layer in [*tunable(model)]:
            if name in classifier:
                continue
            if isinstance(layer, Factorized) and computes_factors():
                diagonalize_(layer)
            for tensor, adapter in self.adapters(layer).items():
                parametrize.register_parametrization(layer, tensor, adapter, unsafe=True)

    def merge_(self, model: nn.Module) -> None:
        """Compute the weights for good, in place: the model answers the same, in the form that `convert` gives."""
        for layer in [*model.modules()]:
            if parametrize.is_parametrized(layer):
                for tensor in [*cast(nn.ModuleDict, layer.parametrizations)]:
                    parametrize.remove_parametrizations(layer, tensor)
        model.requires_grad_(True)

    def ranks(self, model: nn.Module) -> Ranks:
        """Return the ranks from which `convert` rebuilds the model, without what is attached to it."""
        return {name: len(frozen(layer, "S")) for name, layer in tunable(model) if isinstance(layer, Factorized)}

    def describe_layers(self, layers: list[Layer], ranks: Ranks) -> list[LayerReport]:
        """Return the outcome for each layer of the dense model, for the card."""
        return super().describe_layers(in_form(layers, self.convolution), ranks)

    def deploy(self, model: nn.Module) -> nn.Module:
        """Return a copy of a merged model: S merged into U, factors that do not pay multiplied out."""
        return fold(model)


def tunable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of each layer with a weight of its own: linear, a convolution, or factorized."""
    shared = shared_parameters(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | Factorized) and name not in shared:
            yield name, module


def frozen(layer: nn.Module, tensor: str) -> nn.Parameter:
    """Return a tensor of a layer as it is stored, without what changes it."""
    if parametrize.is_parametrized(layer, tensor):
        return cast(nn.ModuleDict, layer.parametrizations)[tensor].get_parameter("original")
    return layer.get_parameter(tensor)
