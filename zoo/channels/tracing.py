"""Find the channels of a network that belong together, with Torch-Pruning's dependency graph.

Fang, Ma, Song, Mi, Wang: DepGraph: towards any structural pruning, CVPR 2023, arXiv 2301.12900.
"""

import copy
import warnings
from collections.abc import Collection
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from zoo.channels.cut import prune_
from zoo.channels.graph import Axis, ChannelGraph, Labels, tensors_of
from zoo.errors import UserError, first_line
from zoo.lowrank.factorize import shared_parameters

MIXING = ("bmm", "scaleddotproduct", "softmax", "unbind", "einsum", "roll")
"""Operations that mix channels (attention), so that one cannot be removed without the others."""
LAYERS = (nn.Linear, nn.Conv2d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def trace_channels(
    network: nn.Module, image_shape: tuple[int, int, int] | None = None, protect: Collection[str] = ()
) -> ChannelGraph:
    """Trace a network and return its channels.

    Channels that cannot be removed one by one are left out, with the reason: the classes, those that attention
    mixes, those that a grouped convolution splits, those of layers that share a parameter, and any whose removal
    breaks a forward pass, which is tried.

    Args:
        network: takes images; it is not changed.
        image_shape: (channels, height, width) of its images; None: its own ``image_shape``, which
            `zoo.backbone.create_backbone` sets.
        protect: names of layers whose outputs stay.

    Raises:
        UserError: the network cannot be traced, or no channel of it can be pruned; the message names a layer.
    """
    shape = image_shape or getattr(network, "image_shape", None)
    if shape is None:
        raise UserError(
            "channels are found by running an image through the network: "
            "give the shape of its images (image_shape, or input_shape of zoo.compress)"
        )
    trial = copy.deepcopy(network).cpu().float().eval().requires_grad_(True)
    example = torch.zeros(1, *shape)
    graph = _traced(trial, example, protect)
    graph = _only_what_runs(trial, graph, example)
    if not graph.sizes:
        layer, why = next(iter(graph.obstacles.items()), ("it", "has no linear or convolution layer"))
        raise UserError(f"no channels of this network can be pruned: {layer}: {why}")
    return graph


def _traced(trial: nn.Module, example: Tensor, protect: Collection[str]) -> ChannelGraph:
    entered: list[str] = []
    hooks = [m.register_forward_pre_hook(lambda *_, n=name: entered.append(n)) for name, m in trial.named_modules()]
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            dependencies = tp.DependencyGraph().build_dependency(trial, example, verbose=False)
            return _as_graph(trial, dependencies, protect)
    except Exception as error:
        why = first_line(error)
        last = entered[-1] if entered else "the network"
        raise UserError(f"the dependencies of the channels cannot be traced, last in layer {last!r}: {why}") from None
    finally:
        for hook in hooks:
            hook.remove()


class _Member:
    """One tensor, or a stand-in for an operation, that a group of channels passes through."""

    def __init__(self, dependencies: Any, dependency: Any, positions: list[int], channels: list[int]) -> None:
        self.module = dependency.target.module
        self.out = bool(dependencies.is_out_channel_pruning_fn(dependency.handler))
        self.is_last = not dependency.target.outputs
        self.positions, self.channels = positions, channels
        self.dim = dependency.target.pruning_dim

    @property
    def obstacle(self) -> str:
        module = self.module
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels == module.out_channels
            return "" if module.groups == 1 or depthwise else f"grouped ({module.groups} groups)"
        if isinstance(module, LAYERS):
            return "its outputs are the network's" if self.out and self.is_last else ""
        if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
            return "normalised in groups of channels"
        operation = str(getattr(module, "_grad_fn", "")) + type(module).__name__
        if any(word in operation.lower() for word in MIXING):
            return "attention mixes its channels"
        known = isinstance(module, (*NORMS, nn.Parameter, nn.PReLU))
        return "" if known or not list(module.parameters()) else f"{type(module).__name__} is not understood"


def _members(dependencies: Any, group: Any) -> list[_Member]:
    return [_Member(dependencies, item.dep, list(item.idxs), list(item.root_idxs)) for item in group]


def _as_graph(trial: nn.Module, dependencies: Any, protect: Collection[str]) -> ChannelGraph:
    names = {module: name for name, module in trial.named_modules()}
    parameter_names = {id(p): name for name, p in trial.named_parameters()}
    tensors, shared = tensors_of(trial), shared_parameters(trial)
    found: list[tuple[list[str], list[_Member]]] = []
    obstacles = {name: "not reached by the trace" for name, m in trial.named_modules() if isinstance(m, LAYERS)}
    for group in dependencies.get_all_groups():
        members = _members(dependencies, group)
        computing = [names[m.module] for m in members if m.out and isinstance(m.module, LAYERS)]
        why = next((m.obstacle for m in members if m.obstacle), "") or _coupling(dependencies, group, members)
        ties = (name for m in members if (name := names.get(m.module, "")) in shared)
        why = why or next((f"{name} {shared[name]}" for name in ties), "")
        why = why or next((f"{name} is protected" for name in computing if name in protect), "")
        for name in computing:
            obstacles[name] = why
        if not why:
            found.append((computing, members))
    order = {name: i for i, name in enumerate(names.values())}
    found = sorted(((sorted(layers, key=order.__getitem__), m) for layers, m in found), key=lambda x: order[x[0][0]])

    graph = ChannelGraph(
        sizes={layers[0]: len(members[0].positions) for layers, members in found},
        layers={name: layers[0] for layers, _ in found for name in layers},
        obstacles={name: why for name, why in obstacles.items() if why},
        axes={},
        producers={layers[0]: [] for layers, _ in found},
        scales={layers[0]: [] for layers, _ in found},
        consumers={layers[0]: [] for layers, _ in found},
        shapes={name: tuple(p.shape) for name, p in trial.named_parameters()},
    )
    for number, (layers, members) in enumerate(found):
        for member in members:
            for axis in _axes(member, names, parameter_names, tensors):
                length = tensors[axis.tensor].shape[axis.dim]
                empty = Labels(torch.full((length,), -1), torch.zeros(length, dtype=torch.long))
                labels = graph.axes.setdefault(axis, empty)
                labels.group[member.positions], labels.channel[member.positions] = number, torch.tensor(member.channels)
            _assign(graph, layers[0], member, names)
    return graph


def _assign(graph: ChannelGraph, group: str, member: _Member, names: dict[nn.Module, str]) -> None:
    """Record a group's member as a weight that computes the group, a scale, or a layer that reads it."""
    if isinstance(member.module, LAYERS):
        name = names[member.module]
        if member.out:
            graph.producers[group].append(f"{name}.weight")
        else:
            graph.consumers[group].append(name)
    elif isinstance(member.module, NORMS) and member.module.weight is not None:
        graph.scales[group].append(f"{names[member.module]}.weight")


def _axes(
    member: _Member, names: dict[nn.Module, str], parameter_names: dict[int, str], tensors: dict[str, Tensor]
) -> list[Axis]:
    """Return the axes along which a member's tensors hold its channels."""
    module = member.module
    if isinstance(module, nn.Parameter):
        return [Axis(parameter_names[id(module)], member.dim % module.ndim)]
    if module not in names or not isinstance(module, (*LAYERS, *NORMS, nn.PReLU)):
        return []
    if isinstance(module, LAYERS) and not member.out:
        return [Axis(f"{names[module]}.weight", 1)]
    own = {**module._parameters, **module._buffers}
    length = len(module.weight) if module.weight is not None else len(own["running_mean"])
    full = [name for name, x in own.items() if x is not None and x.ndim and len(x) == length]
    return [Axis(f"{names[module]}.{name}", 0) for name in full if f"{names[module]}.{name}" in tensors]


def _coupling(dependencies: Any, group: Any, members: list[_Member]) -> str:
    """Return why channels of a group cannot be removed one by one, or ``""``: each must use only its own positions."""
    root, handler, n = group[0].dep.target.module, group[0].dep.handler, len(group[0].idxs)
    touched = {(id(m.module), m.out): dict(zip(m.positions, m.channels, strict=True)) for m in members}
    for channel in {0, n // 2, n - 1}:
        for one in _members(dependencies, dependencies.get_pruning_group(root, handler, [channel])):
            if {touched[id(one.module), one.out].get(i) for i in one.positions} != {channel}:
                return "its channels depend on each other"
    return ""


def _only_what_runs(trial: nn.Module, graph: ChannelGraph, example: Tensor) -> ChannelGraph:
    """Halve the channels of all groups and run the network; groups whose removal works are kept."""
    problem = _problem(trial, graph, list(graph.sizes), example)
    if not problem:
        return graph
    problems = {group: _problem(trial, graph, [group], example) for group in graph.sizes}
    broken = {group: why for group, why in problems.items() if why} or dict.fromkeys(graph.sizes, problem)
    for layer, group in graph.layers.items():
        if group in broken:
            graph.obstacles[layer] = f"without some of its channels the network fails: {broken[group]}"
    return _without(graph, set(broken))


@torch.no_grad()
def _problem(trial: nn.Module, graph: ChannelGraph, groups: list[str], example: Tensor) -> str:
    cut = copy.deepcopy(trial)
    try:
        wanted = trial(example).shape
        prune_(cut, graph, {group: torch.arange((graph.sizes[group] + 1) // 2) for group in groups})
        found = cut(example).shape
    except Exception as error:
        return first_line(error)
    return "" if found == wanted else f"its answer has the shape {tuple(found)}"


def _without(graph: ChannelGraph, broken: set[str]) -> ChannelGraph:
    left = [number for number, group in enumerate(graph.sizes) if group not in broken]
    renumber = torch.full((len(graph.sizes) + 1,), -1)  # the last entry is the value for -1, no group
    renumber[left] = torch.arange(len(left))

    def rest(of_groups: dict[str, Any]) -> dict[str, Any]:
        return {group: x for group, x in of_groups.items() if group not in broken}

    return ChannelGraph(
        sizes=rest(graph.sizes),
        layers={layer: group for layer, group in graph.layers.items() if group not in broken},
        obstacles=graph.obstacles,
        axes={axis: Labels(renumber[labels.group], labels.channel) for axis, labels in graph.axes.items()},
        producers=rest(graph.producers),
        scales=rest(graph.scales),
        consumers=rest(graph.consumers),
        shapes=graph.shapes,
    )
