"""The channel graph: which positions of which tensors are the same channel."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Axis(NamedTuple):
    """One dimension of a parameter or buffer, by the tensor's name in the network."""

    tensor: str
    dim: int


class Labels(NamedTuple):
    """The group's number (-1: none) and the channel in it, for each position along an axis."""

    group: Tensor
    channel: Tensor


@dataclass(frozen=True)
class ChannelGraph:
    """The channels of a network that may be pruned.

    Channels that only make sense together (the outputs of layers that are added up) are one group. Positions along a
    tensor's axis carry labels, so a cut is an index along each axis, for every tensor that has it: a weight, a running
    mean, a momentum or an average.

    Attributes:
        sizes: channels of each group; a group is named after the first layer that computes it.
        layers: the group of each linear and convolution layer's outputs.
        obstacles: why the outputs of the other layers cannot be pruned.
        axes: labels along each axis that has channels.
        producers: per group, the weights whose rows (dimension 0) compute it.
        scales: per group, the scales of its normalisation layers.
        consumers: per group, the layers that read it (dimension 1 of their weights).
        shapes: of every parameter of the network.
    """

    sizes: dict[str, int]
    layers: dict[str, str]
    obstacles: dict[str, str]
    axes: dict[Axis, Labels]
    producers: dict[str, list[str]]
    scales: dict[str, list[str]]
    consumers: dict[str, list[str]]
    shapes: dict[str, tuple[int, ...]]

    def number(self, group: str) -> int:
        """Return a group's number in the labels."""
        return list(self.sizes).index(group)

    def _offsets(self) -> Tensor:
        """Return where each group begins if all channels are concatenated; the last entry means no group."""
        begins = torch.tensor([0, *self.sizes.values()]).cumsum(0)
        begins[-1] = 0
        return begins

    def per_channel(self, group: str, axis: Axis, values: Tensor) -> Tensor:
        """Add up values along an axis by the channel of a group that they belong to: (length,) to (channels,)."""
        labels = self.axes[axis]
        here = (labels.group == self.number(group)).nonzero().flatten().to(values.device)
        channel = labels.channel.to(values.device)[here]
        return values.new_zeros(self.sizes[group]).index_add_(0, channel, values[here])

    def positions(self, keep: dict[str, Tensor]) -> dict[Axis, Tensor]:
        """Return the remaining indices of each axis that a cut shortens.

        Args:
            keep: indices of the channels that stay, for each group that is cut.
        """
        first, stays = self._offsets(), torch.ones(sum(self.sizes.values()), dtype=torch.bool)
        for name, kept in keep.items():
            begin = first[self.number(name)]
            stays[begin : begin + self.sizes[name]] = _mask(kept, self.sizes[name])
        left = {}
        for axis, labels in self.axes.items():
            here = (labels.group < 0) | stays[first[labels.group] + labels.channel]
            if not here.all():
                left[axis] = here.nonzero().flatten()
        return left

    def after(self, keep: dict[str, Tensor]) -> "ChannelGraph":
        """Return the graph of the network after a cut; channels are renumbered, in their order."""
        positions = self.positions(keep)
        first, number = self._offsets(), torch.cat([torch.arange(n) for n in self.sizes.values()])
        for name, kept in keep.items():
            begin = first[self.number(name)]
            number[begin : begin + self.sizes[name]] = _mask(kept, self.sizes[name]).cumsum(0) - 1
        axes = {}
        for axis, labels in self.axes.items():
            index = positions.get(axis, torch.arange(len(labels.group)))
            group, channel = labels.group[index], labels.channel[index]
            axes[axis] = Labels(group, torch.where(group < 0, 0, number[first[group] + channel]))
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        for axis, index in positions.items():
            if axis.tensor in shapes:
                shapes[axis.tensor][axis.dim] = len(index)
        return replace(
            self,
            sizes=self.sizes | {group: len(kept) for group, kept in keep.items()},
            axes=axes,
            shapes={name: tuple(shape) for name, shape in shapes.items()},
        )


class ParameterCount:
    """Counts a network's parameters for any number of channels per group, without cutting anything.

    Args:
        graph: of the network.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._groups = list(graph.sizes)
        most = max((len(shape) for shape in graph.shapes.values()), default=0)
        # Extent of each dimension = fixed + sum of positions per channel * channels; exact in fp64 below 2^53.
        self._fixed = torch.ones(len(graph.shapes), most, dtype=torch.float64)
        self._each = torch.zeros(len(graph.shapes), most, len(self._groups), dtype=torch.float64)
        sizes = torch.tensor(list(graph.sizes.values()), dtype=torch.float64)
        for i, (name, shape) in enumerate(graph.shapes.items()):
            for dim, extent in enumerate(shape):
                self._fixed[i, dim] = extent
                labels = graph.axes.get(Axis(name, dim))
                if labels is not None:
                    positions = torch.bincount(labels.group[labels.group >= 0], minlength=len(sizes))
                    self._each[i, dim] = positions / sizes
                    self._fixed[i, dim] -= positions.sum()

    def __call__(self, sizes: dict[str, int]) -> int:
        """Return the number of parameters for a number of channels per group."""
        present = torch.tensor([sizes[group] for group in self._groups], dtype=torch.float64)
        return round(float((self._fixed + self._each @ present).prod(1).sum()))


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's parameters and buffers by name, shared ones once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _mask(kept: Tensor, size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[kept.cpu()] = True
    return mask
