"""How many images a network gets at once: on a CPU no more than its cache holds activations for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

if TYPE_CHECKING:
    from jaxtyping import Float

CACHED_PIXELS = 2**15
"""Pixels of one channel in a batch on a CPU; with more, a large network's activations no longer fit into its cache."""
CACHED_BYTES = 2**23
"""Size of the largest activation of such a batch: 32 images of 32 x 32 pixels in a ResNet-18, 160 in a network whose
first convolution has 16 channels and stride 2. That one takes 0.75 of the time for a gradient with 128 images at once
instead of 32, and 0.79 for a forward pass (one core of a Xeon with AMX, fp32, one process)."""
FEWEST = 8
"""Images of a batch on a CPU, however large they are."""
SMALLEST_BATCH = 16
"""Libraries choose another kernel for smaller batches, and it rounds differently, so that an image's logits would
depend on how many other images are robust so far."""


def by_pixels(image: Float[Tensor, "c h w"]) -> int:
    """Return how many images like this one any model on the CPU gets at once."""
    return max(FEWEST, CACHED_PIXELS // image[0].numel())


def images_at_once(model: nn.Module, image: Float[Tensor, "1 c h w"], most: int) -> int:
    """Return how many images like this one a model on the CPU gets at once: at least `FEWEST`, at most ``most``."""
    activation = _largest_activation(model, image)
    return min(most, max(by_pixels(image[0]), CACHED_BYTES // activation if activation else 0))


def _largest_activation(model: nn.Module, image: Float[Tensor, "1 c h w"]) -> int:
    """Return the bytes per image of the largest tensor but weights that a gradient needs; 0 without gradients."""
    weights = {p.data_ptr() for p in model.parameters()} if isinstance(model, nn.Module) else set()
    largest = 0

    def look(saved: Tensor) -> None:  # returning a result would close a cycle, and keep the graph alive
        nonlocal largest
        if saved.data_ptr() not in weights:
            largest = max(largest, saved.nbytes)

    def never(_: None) -> Tensor:
        raise RuntimeError("no backward pass follows")

    images = image.detach().repeat(SMALLEST_BATCH, 1, 1, 1).requires_grad_()
    try:
        with torch.enable_grad(), saved_tensors_hooks(look, never):
            model(images)
    except RuntimeError:  # a function outside PyTorch, which an attack without gradients may query
        return 0
    return largest // SMALLEST_BATCH
