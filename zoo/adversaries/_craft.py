"""Make adversarial images during training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attacks._threat import project
from zoo.layers import applied_once
from zoo.modes import evaluating


@contextmanager
def _searched(model: nn.Module) -> Iterator[None]:
    """Search in eval mode: BatchNorm's statistics see no images of half-way, and dropout does not blur gradients.

    Parameters take no gradients meanwhile: a compiled backward pass computes all that a model asks for, needed or not.
    One search may stand inside another.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        with evaluating(model), applied_once(model):
            yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def craft(
    model: nn.Module,
    images: Tensor,
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    eps: float,
    steps: int,
    relative_step: float = 2.5,
) -> Tensor:
    """Return images within eps (Linf) and [0, 1] at the end of signed gradient ascent.

    Images are fp32 whatever the precision of the model; only the gradient in the images is computed.

    Args:
        model: images to logits.
        images: (B, C, H, W) in [0, 1].
        start: where the ascent starts; it is brought into the ball first.
        loss: of the logits, what to raise.
        eps: radius.
        steps: of the ascent.
        relative_step: size of each in units of eps / steps; 2.5 is 2/255 for ten steps at 8/255.
    """
    x = project(start.detach().float(), images, eps, "Linf")
    with _searched(model), torch.enable_grad():
        for _ in range(steps):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(model(x).float()), x)
            x = project(x.detach() + relative_step * eps / steps * gradient.sign(), images, eps, "Linf")
    return x.detach()


def misleading(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, relative_step: float = 2.5
) -> Tensor:
    """Return images where the cross-entropy is large: see `craft`; the start is uniform in the ball."""
    start = images + eps * (2 * torch.rand_like(images) - 1)

    def loss(logits: Tensor) -> Tensor:
        # A sum: the gradients of a mean over a large batch would underflow in fp16.
        return F.cross_entropy(logits, labels, reduction="sum")

    return craft(model, images, start, loss, eps, steps, relative_step)


def unsettling(
    model: nn.Module, images: Tensor, distance: Callable[[Tensor, Tensor], Tensor], eps: float, steps: int
) -> Tensor:
    """Return images whose answer is far from that on the images themselves: see `craft`.

    The start is beside the images, where distances have a gradient.

    Args:
        model, images, eps, steps: see `craft`.
        distance: of logits (B, K) and the probabilities (B, K) on the images, as the search sees them; summed.
    """
    start = images + 0.001 * torch.randn_like(images)
    with _searched(model):
        with torch.no_grad():
            target = F.softmax(model(images).float(), 1)
        return craft(model, images, start, lambda logits: distance(logits, target), eps, steps)
