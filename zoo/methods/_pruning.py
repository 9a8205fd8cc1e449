"""Base of the methods that prune channels."""

import copy
from dataclasses import dataclass

from torch import nn

from zoo.budget import Budget
from zoo.channels import build_widths, layer_report, trace_channels, widths
from zoo.channels.width_selection import choose_widths
from zoo.errors import UserError
from zoo.lowrank.factorize import Layer, LayerReport, Ranks
from zoo.methods._base import Method
from zoo.runtime.complexity import count_params

DEFAULT_BUDGET = Budget(compression=0.75)
BACKBONE = "model.backbone"
"""Attribute of the training's LightningModule that holds the network to prune."""


@dataclass(frozen=True)
class ChannelMethod(Method):
    """A network that starts dense and loses channels during training; it is rebuilt from its widths."""

    begin: float = 0.3
    """When to cut, as a share of the training's steps; 0 is enough with the weights of a dense run."""

    def __post_init__(self) -> None:
        if not 0 <= self.begin < 1:
            raise UserError(f"begin {self.begin} is invalid: the cut is at a share of the steps, 0 <= begin < 1")

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Return the widths of the dense model, with which training starts (default: training removes 75 %)."""
        graph, total = trace_channels(model), count_params(model)
        choose_widths(graph, graph.sizes, (1 - compression(budget)) * total, total)
        return widths(model)

    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Cut the model to the given widths."""
        if ranks == widths(model):
            return model
        return build_widths(model, trace_channels(model), ranks)

    def compress(self, model: nn.Module, budget: Budget | None) -> nn.Module:
        """Refuse, unless a method overrides this: the channels to remove are chosen during training."""
        raise UserError(
            "this method finds the channels that go while the network trains: choose magnitude_prune, which cuts at "
            "once, or train with `zoo train`"
        )

    def ranks(self, model: nn.Module) -> Ranks:
        """Return the current width of every linear and convolution layer."""
        return widths(model)

    def describe_layers(self, layers: list[Layer], ranks: Ranks) -> list[LayerReport]:
        """Return how many outputs of each layer are left."""
        return layer_report(layers, ranks)

    def deploy(self, model: nn.Module) -> nn.Module:
        """Return a copy: pruned layers are already plain and narrow."""
        return copy.deepcopy(model)


def compression(budget: Budget | None) -> float:
    """Return the share of the parameters to remove.

    Raises:
        UserError: the budget is a rank fraction, or limits multiply-accumulates too.
    """
    budget = budget or DEFAULT_BUDGET
    if budget.compression is None:
        raise UserError("channels have no rank: give --compression instead of --rank-fraction")
    if budget.macs_reduction is not None:
        raise UserError("channels go by their criterion until the parameters are met: leave --macs-reduction out")
    return budget.compression
