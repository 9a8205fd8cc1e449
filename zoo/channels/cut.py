"""Remove channels from a network, in place, and rebuild a pruned network."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.channels.graph import ChannelGraph, tensors_of
from zoo.errors import UserError, unknown_name
from zoo.lowrank.factorize import Layer, LayerReport
from zoo.runtime.memory_format import empty_as
from zoo.runtime.optimizer_state import follow_

Widths = dict[str, int]
"""The number of outputs of each linear and convolution layer, by the layer's name in the network."""


def widths(network: nn.Module) -> Widths:
    """Return the current width of every linear and convolution layer."""
    return {name: len(m.weight) for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


@torch.no_grad()
def prune_(
    network: nn.Module,
    graph: ChannelGraph,
    keep: dict[str, Tensor],
    optimizers: Iterable[Optimizer] = (),
    averages: Iterable[nn.Module] = (),
) -> ChannelGraph:
    """Keep only some channels of some groups, in place, and return the graph of the pruned network.

    Parameters stay the same objects, so optimizers keep training them; gradients are dropped.

    Args:
        network: to prune.
        graph: its current channels.
        keep: indices of the channels that stay, for each group that is cut; their order does not matter.
        optimizers: their state is sliced along, see `zoo.runtime.optimizer_state.follow_`.
        averages: copies of the network that hold averages, to be pruned in the same way.

    Raises:
        UserError: a group of that name is not in the graph, or would keep no channel.
    """
    for group, kept in keep.items():
        if group not in graph.sizes:
            raise unknown_name("group of channels", group, graph.sizes)
        if not len(kept):
            raise UserError(f"{group} would keep none of its {graph.sizes[group]} channels")
    networks, optimizers = [network, *averages], list(optimizers)
    tensors = [tensors_of(same) for same in networks]
    for (name, dim), index in graph.positions(keep).items():
        parameter = tensors[0][name]
        follow_(optimizers, parameter, partial(_slice_of_state, dim, index))
        for of_network in tensors:
            of_network[name].data = _taken(of_network[name].data, dim, index)
            of_network[name].grad = None
    for same in networks:
        read_sizes_(same)
    return graph.after(keep)


def _slice_of_state(dim: int, index: Tensor, _: str, x: Tensor) -> Tensor:
    return _taken(x, dim, index)


def _taken(x: Tensor, dim: int, index: Tensor) -> Tensor:
    taken = x.index_select(dim, index.to(x.device))
    return empty_as(x, taken.shape).copy_(taken)


def read_sizes_(network: nn.Module) -> None:
    """Make the size attributes of layers agree with their tensors."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels == module.out_channels
            module.out_channels = len(module.weight)
            if depthwise and module.groups > 1:
                module.groups = module.out_channels
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            sized = module.weight if module.weight is not None else module.running_mean
            module.num_features = module.num_features if sized is None else len(sized)
        elif isinstance(module, nn.GroupNorm) and module.weight is not None:
            module.num_channels = len(module.weight)
        elif isinstance(module, nn.PReLU):
            module.num_parameters = len(module.weight)
        elif isinstance(getattr(module, "normalized_shape", None), tuple) and isinstance(module.weight, Tensor):
            module.normalized_shape = tuple(module.weight.shape)  # type: ignore[assignment]


def build_widths(network: nn.Module, graph: ChannelGraph, wanted: Widths) -> nn.Module:
    """Cut a network to saved widths, in place; any channels may be removed, because weights are loaded into it next.

    Args:
        network: as `create_backbone` builds it.
        graph: its channels.
        wanted: from `widths`; layers that are not named keep theirs.

    Raises:
        UserError: a name is not a layer of the network, or a width is invalid for it.
    """
    present = widths(network)
    keep: dict[str, Tensor] = {}
    for name, width in wanted.items():
        if name not in present:
            raise unknown_name("layer", name, present)
        if width == present[name]:
            continue
        group = graph.layers.get(name)
        if group is None:
            raise UserError(f"layer {name!r} cannot have {width} of {present[name]} outputs: {graph.obstacles[name]}")
        if not 1 <= width <= present[name]:
            raise UserError(f"layer {name!r} cannot have {width} outputs: it has {present[name]}")
        if width != len(keep.setdefault(group, torch.arange(width))):
            raise UserError(f"layers {group!r} and {name!r} share their channels, but not their saved width")
    prune_(network, graph, keep)
    return network


@torch.no_grad()
def fit_shapes_(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a module's tensors the shapes, ranks and widths, of a state dict that is loaded into it next."""
    for name, tensor in tensors_of(module).items():
        if name in state and tensor.shape != state[name].shape:
            tensor.data = empty_as(tensor.data, state[name].shape)
            tensor.grad = None
    read_sizes_(module)


def layer_report(layers: list[Layer], wanted: Widths) -> list[LayerReport]:
    """Return how many outputs of each layer of the dense network are left."""
    rows = []
    for layer in layers:
        width = wanted.get(layer.name, layer.n)
        note = "all outputs kept" if width == layer.n else f"{width} of {layer.n} outputs kept"
        rows.append(LayerReport(layer.name, layer.kind, layer.shape, None, note))
    return rows
