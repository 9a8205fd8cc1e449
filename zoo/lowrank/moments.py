"""Second moments of the inputs and outputs of a network's layers, gathered batch by batch with forward hooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.linalg.stiefel import full_precision
from zoo.runtime.eval_mode import evaluating

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

CHUNK = 2**23
"""Most entries of unfolded maps held at a time, which bounds the memory (64 MB in fp64)."""


class Observer(Protocol):
    """Observes the inputs and outputs of a layer."""

    def add(self, layer: nn.Module, x: Float[Tensor, "batch ..."], y: Float[Tensor, "batch ..."]) -> None:
        """Take a batch of inputs, and of outputs without the bias."""


@torch.no_grad()
def observe(
    model: nn.Module, images: Float[Tensor, "batch c h w"], observers: Mapping[str, Sequence[Observer]], batch_size: int
) -> None:
    """Pass the inputs and outputs of a model's layers to observers, in eval mode and fp32.

    Args:
        model: whose linear and convolution layers are observed.
        images: as the model takes them; moved to its device batch by batch.
        observers: by the name of the layer in the model; without any the model is not run.
        batch_size: images of a forward pass.
    """
    if not observers:
        return
    device = next(model.parameters()).device
    with evaluating(model), full_precision(device), ExitStack() as stack:
        for name, takers in observers.items():
            stack.enter_context(_hooked(model.get_submodule(name), takers))
        for batch in images.split(batch_size):
            model(batch.to(device))


@contextmanager
def _hooked(layer: nn.Module, observers: Sequence[Observer]) -> Iterator[None]:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], y: Float[Tensor, "batch ..."]) -> None:
        if isinstance(bias := layer.bias, Tensor):
            y = y - (bias[:, None, None] if isinstance(layer, nn.Conv2d) else bias)
        for observer in observers:
            observer.add(layer, inputs[0], y)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class OutputMoment(Observer):
    """E[y y^T] of a layer's outputs, in fp64, and the mean square of the entries of its inputs.

    It is not centred, like all moments here: the mean is a direction like any other.
    """

    def __init__(self) -> None:
        self.count, self._entries = 0, 0
        self._sum: Tensor | float = 0.0
        self._squares = 0.0

    def add(self, layer: nn.Module, x: Float[Tensor, "batch ..."], y: Float[Tensor, "batch ..."]) -> None:
        """Take a batch of inputs, and of outputs without the bias."""
        rows = positions(layer, y).double()
        self._sum = self._sum + rows.T @ rows
        self.count += len(rows)
        self._squares += x.square().sum(dtype=torch.float64).item()
        self._entries += x.numel()

    @property
    def value(self) -> Float64[Tensor, "n n"]:
        """The moment over all images and positions."""
        assert isinstance(self._sum, Tensor)
        return self._sum / self.count

    @property
    def input_square(self) -> float:
        """The mean square of an entry of the inputs."""
        return self._squares / self._entries

    @property
    def is_finite(self) -> bool:
        """Whether no input and no output is infinite or undefined."""
        return math.isfinite(self._squares) and bool(self.value.isfinite().all())


class PatchMoments(OutputMoment):
    """The output moment of a convolution, and two marginals of the moment of its patches x, (c kh kw).

    With them, that moment is approximately channels (x) offsets / trace(offsets).
    """

    def __init__(self) -> None:
        super().__init__()
        self._channels: Tensor | float = 0.0
        self._offsets: Tensor | float = 0.0

    def add(self, layer: nn.Module, x: Float[Tensor, "batch c h w"], y: Float[Tensor, "batch n h_out w_out"]) -> None:
        """Take a batch of inputs, and of outputs without the bias."""
        super().add(layer, x, y)
        assert isinstance(layer, nn.Conv2d)
        pixels = positions(layer, x).double()
        self._channels = self._channels + pixels.T @ pixels
        for part in x.split(_images_at_once(x[0].numel() * layer.weight[0, 0].numel())):
            patches = unfolded(layer, part.flatten(0, 1)[:, None])
            self._offsets = self._offsets + (patches.T @ patches).double()

    @property
    def channels(self) -> Float64[Tensor, "c c"]:
        """E[x x^T] of a pixel's channels, up to a factor."""
        assert isinstance(self._channels, Tensor)
        return self._channels / self._channels.trace().clamp_min(1e-300)

    @property
    def offsets(self) -> Float64[Tensor, "area area"]:
        """E[x x^T] of a channel's patches, of kh kw entries, up to a factor."""
        assert isinstance(self._offsets, Tensor)
        return self._offsets / self._offsets.trace().clamp_min(1e-300)


class ProjectedMoments(Observer):
    """Second moments of a convolution's patches z, their channels projected on a basis, and with its outputs y.

    Args:
        basis: V.
    """

    def __init__(self, basis: Float[Tensor, "c s"]) -> None:
        self.basis, self.count = basis, 0
        self._gram: Tensor | float = 0.0
        self._cross: Tensor | float = 0.0

    def add(self, layer: nn.Module, x: Float[Tensor, "batch c h w"], y: Float[Tensor, "batch n h_out w_out"]) -> None:
        """Take a batch of inputs, and of outputs without the bias."""
        assert isinstance(layer, nn.Conv2d)
        z = F.conv2d(x, self.basis.T[:, :, None, None])
        size = y[0, 0].numel() * z.shape[1] * layer.weight[0, 0].numel()
        for part, outputs in zip(*(t.split(_images_at_once(size)) for t in (z, y)), strict=True):
            patches, rows = unfolded(layer, part).double(), positions(layer, outputs).double()
            self._gram = self._gram + patches.T @ patches
            self._cross = self._cross + rows.T @ patches
            self.count += len(rows)

    @property
    def gram(self) -> Float64[Tensor, "patch patch"]:
        """E[z z^T]; a patch has s kh kw entries."""
        assert isinstance(self._gram, Tensor)
        return self._gram / self.count

    @property
    def cross(self) -> Float64[Tensor, "n patch"]:
        """E[y z^T]."""
        assert isinstance(self._cross, Tensor)
        return self._cross / self.count


def unfolded(conv: nn.Conv2d, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "rows patch"]:
    """Return the patches that a convolution multiplies with its kernel: c kh kw entries for each image and position.

    Args:
        conv: whose kernel, stride, padding and dilation count; x may have other channels.
        x: its input.
    """
    padded = F.pad(x, conv._reversed_padding_repeated_twice)
    patches = F.unfold(padded, conv.kernel_size, conv.dilation, stride=conv.stride)
    return patches.mT.flatten(0, 1)


def positions(layer: nn.Module, values: Float[Tensor, "batch ..."]) -> Float[Tensor, "rows n"]:
    """Return a map, or tokens, as a matrix of one row per position and image."""
    return (values.movedim(1, -1) if isinstance(layer, nn.Conv2d) else values).flatten(0, -2)


def _images_at_once(entries: int) -> int:
    """Return how many images fit, from the entries of the unfolded map of one."""
    return max(1, CHUNK // entries)
