"""Trainable masks: scores on channels, of which those with the largest scores pass, before anything is cut."""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zoo.channels.graph import Axis, ChannelGraph


class ChannelMasks:
    """Switches channels off in the layers that read them, as a cut would, with trainable scores.

    The input of every layer that reads a group is multiplied by the group's mask: 1 for the channels with the largest
    scores, 0 for the others; the gradient goes straight through to the scores. If the network normalises each channel
    separately, its answers are exactly those after the cut.

    Args:
        network: whose channels are masked, until `remove`.
        graph: of the network.
        scores: per group, (channels,).
        sizes: channels of each group that pass.
    """

    def __init__(
        self, network: nn.Module, graph: ChannelGraph, scores: dict[str, Tensor], sizes: dict[str, int]
    ) -> None:
        device = next(network.parameters()).device
        self.scores = {g: nn.Parameter(x.detach().clone().to(device)) for g, x in scores.items() if sizes[g] < len(x)}
        self.sizes = sizes
        self.shift: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        reading = {layer for group in self.scores for layer in graph.consumers[group]}
        for name in sorted(reading):
            labels = graph.axes[Axis(f"{name}.weight", 1)]
            hook = _Gate(self, list(graph.sizes), labels.group.to(device), labels.channel.to(device))
            self._handles.append(network.get_submodule(name).register_forward_pre_hook(hook))

    def mask(self, group: str) -> Tensor:
        """Return a group's mask, 0 or 1, whose gradient is the scores'."""
        scores = self.scores[group] + self.shift.get(group, 0.0)
        chosen = torch.zeros_like(scores).scatter_(0, scores.detach().topk(self.sizes[group]).indices, 1.0)
        return chosen + (scores - scores.detach())

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Return the gradients of a loss in the scores."""
        found = torch.autograd.grad(loss, list(self.scores.values()), allow_unused=True)
        return {
            g: x if x is not None else torch.zeros_like(s) for (g, s), x in zip(self.scores.items(), found, strict=True)
        }

    def remove(self) -> None:
        """Remove the masks: every channel passes again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @staticmethod
    def of(network: nn.Module) -> "ChannelMasks | None":
        """Return the masks of a network, None if it has none."""
        for module in network.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, _Gate):
                    return hook.masks
        return None


class _Gate:
    """Multiplies the input of one layer by the masks of the groups that it reads."""

    def __init__(self, masks: ChannelMasks, groups: list[str], group: Tensor, channel: Tensor) -> None:
        self.masks = masks
        self.parts = []
        for number in group.unique().tolist():
            if number >= 0 and groups[number] in masks.scores:
                here = (group == number).nonzero().flatten()
                self.parts.append((groups[number], here, channel[here]))
        self.length = len(group)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0]
        mask = torch.ones(self.length, device=x.device)
        for group, here, channel in self.parts:
            mask = mask.index_copy(0, here, self.masks.mask(group)[channel].to(mask.dtype))
        shape = (-1, 1, 1) if isinstance(module, nn.Conv2d) else (-1,)
        return (x * mask.to(x.dtype).view(shape), *inputs[1:])
