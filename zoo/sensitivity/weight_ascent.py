"""Move the weights of a network by a relative radius, and put them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attacks import fp32, project

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from zoo.sensitivity.probe_context import ProbeContext

RELATIVE_STEP = 2.5
"""Length of a step in units of radius/steps: as in PGD, long enough to cross the ball."""
TINY = 1e-20


@contextmanager
def movable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Yield the weights of linear, convolution and similar layers to move in place; then restore them, bit for bit.

    Biases and the vectors of normalisation layers stay, as in Wu, Xia, Wang, NeurIPS 2020, arXiv 2004.05884.
    """
    weights = [p for p in model.parameters() if p.ndim > 1]
    before = [(p.detach().clone(), p.requires_grad) for p in weights]
    try:
        yield weights
    finally:
        for p, (value, required) in zip(weights, before, strict=True):
            p.data.copy_(value)
            p.requires_grad_(required)


def move_at_random(weights: list[nn.Parameter], radius: float, generator: torch.Generator) -> None:
    """Add to every weight W a uniformly random direction of length ``radius ||W||_F``."""
    for p in weights:
        noise = torch.randn(p.shape, generator=generator).to(p)
        p.data.add_(noise * (radius * p.data.norm() / noise.norm().clamp_min(TINY)))


def ascend(
    context: ProbeContext,
    weights: list[nn.Parameter],
    images: Float[Tensor, "batch c h w"],
    radius: float,
    eps: float,
    steps: int,
) -> Float[Tensor, "batch c h w"]:
    """Raise the mean cross-entropy by moving weights and images together; return the images.

    Every step is one gradient over all images. Each weight moves by its normalized gradient, within
    ``||W - W_0||_F <= radius ||W_0||_F``; one movement serves all images. Each image moves by the sign of its
    gradient, within eps (Linf) and [0, 1].
    Source: the inner maximization of arXiv 2004.05884 (equation 8), repeated as often as PGD's steps.

    Args:
        context: with the network and the labels.
        weights: see `movable`.
        images: where the images start.
        radius: relative radius of the weights; 0: they do not move.
        eps: radius of the images; 0: they do not move.
        steps: gradient steps.
    """
    if not radius and not eps:
        return images
    start, centres, x = images, [p.detach().clone() for p in weights], images.clone()
    with fp32(context.device):
        for p in weights:
            p.requires_grad_(radius > 0)
        moving = weights if radius else []
        for _ in range(steps):
            gradients = [torch.zeros_like(p) for p in weights]
            for rows in torch.arange(len(x), device=x.device).split(context.batch_size):
                found, of_images = _gradients(context, moving, x[rows], context.labels[rows], eps > 0)
                for total, gradient in zip(gradients, found, strict=False):
                    total += gradient
                if of_images is not None:
                    ahead = x[rows] + RELATIVE_STEP * eps / steps * of_images.sign()
                    x[rows] = project(ahead, start[rows], eps, "Linf")
            for p, centre, gradient in zip(weights, centres, gradients, strict=True):
                _step(p, centre, gradient, radius, RELATIVE_STEP * radius / steps)
    return x


def _gradients(
    context: ProbeContext,
    weights: list[nn.Parameter],
    images: Float[Tensor, "batch c h w"],
    labels: Int[Tensor, " batch"],
    of_images: bool,
) -> tuple[list[Tensor], Float[Tensor, "batch c h w"] | None]:
    """Return the gradients of the summed cross-entropy in the weights, and in the images if these move too."""
    images = images.detach().requires_grad_(of_images)
    loss = F.cross_entropy(context.model(images), labels, reduction="sum")
    wanted = [*weights, images] if of_images else list(weights)
    found = torch.autograd.grad(loss, wanted, materialize_grads=True)
    return list(found[: len(weights)]), found[-1] if of_images else None


@torch.no_grad()
def _step(p: nn.Parameter, centre: Tensor, gradient: Tensor, radius: float, share: float) -> None:
    """Move a weight by ``share ||W_0||`` along its gradient, then back to the ball around W_0."""
    length = centre.norm()
    change = p + gradient * (share * length / gradient.norm().clamp_min(TINY)) - centre
    p.copy_(centre + change * (radius * length / change.norm().clamp_min(TINY)).clamp_max(1.0))
