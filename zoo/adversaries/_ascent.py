"""Make adversarial images during training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._base import Threat
from zoo.adversaries._classification import classification_loss
from zoo.attacks import project
from zoo.lowrank.applied_once import applied_once
from zoo.runtime.eval_mode import evaluating


@contextmanager
def searched(model: nn.Module) -> Iterator[None]:
    """Search in eval mode: intermediate attack iterates never update BatchNorm statistics, and dropout is off.

    Parameters take no gradients meanwhile: a compiled backward pass computes every requested gradient, needed or not.
    One search may run inside another.
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


def pgd_ascent(
    model: nn.Module,
    images: Tensor,
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    eps: float,
    steps: int,
    relative_step: float = 2.5,
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return images within eps (Linf) and [0, 1] at the end of signed gradient ascent.

    Images are fp32 whatever the precision of the model; only the gradient in the images is computed.

    Args:
        model: images to logits.
        images: (B, C, H, W) in [0, 1].
        start: where the ascent starts; it is brought into the ball first.
        loss: of the logits; it is maximised.
        eps: radius.
        steps: of the ascent.
        relative_step: size of each in units of eps / steps; 2.5 is 2/255 for ten steps at 8/255.
        watch: receives each gradient.
    """
    x = project(start.detach().float(), images, eps, "Linf")
    with searched(model):
        for _ in range(steps):
            gradient = gradient_of(model, x, loss)
            if watch is not None:
                watch(gradient)
            x = project(x + relative_step * eps / steps * gradient.sign(), images, eps, "Linf")
    return x


def ce_ascent(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, steps: int, relative_step: float = 2.5
) -> Tensor:
    """Return images where the classification loss is large: see `pgd_ascent`; the start is uniform in the ball."""
    start = images + threat.eps * uniform_noise(images)
    return pgd_ascent(model, images, start, summed_loss(labels, threat), threat.eps, steps, relative_step, threat.watch)


def one_step(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, noise: float, relative_step: float
) -> Tensor:
    """Return images one signed step up the classification loss from a noisy start, clipped only to [0, 1].

    Args:
        model, images, labels: see `pgd_ascent`.
        threat: radius, and label smoothing or soft targets.
        noise: half-width of the uniform noise at the start, in units of eps.
        relative_step: size of the step in units of eps.
    """
    x = (images + noise * threat.eps * uniform_noise(images)).clamp_(0, 1)
    with searched(model):
        gradient = gradient_of(model, x, summed_loss(labels, threat))
    if threat.watch is not None:
        threat.watch(gradient)
    return (x + relative_step * threat.eps * gradient.sign()).clamp_(0, 1)


def gradient_of(model: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient in the images, fp32, of a loss of the logits."""
    x = images.detach().float().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(model(x).float()), x)
    return gradient


def uniform_noise(images: Tensor) -> Tensor:
    """Return independent uniform numbers in [-1, 1), in the images' shape."""
    return 2 * torch.rand_like(images) - 1


def summed_loss(labels: Tensor, threat: Threat) -> Callable[[Tensor], Tensor]:
    """Return the classification loss that training minimises, as a sum over images.

    A sum, because the gradients of a mean over a large batch would underflow in fp16.
    """
    return partial(classification_loss, labels=labels, threat=threat, reduction="sum")


def kl_ascent(
    model: nn.Module, images: Tensor, distance: Callable[[Tensor, Tensor], Tensor], eps: float, steps: int
) -> Tensor:
    """Return nearby images whose answers are far from those on the given images: see `pgd_ascent`.

    The start is beside the images, where distances have a gradient.

    Args:
        model, images, eps, steps: see `pgd_ascent`.
        distance: of logits (B, K) and the probabilities (B, K) on the images, as the search sees them; summed.
    """
    start = images + 0.001 * torch.randn_like(images)
    with searched(model):
        with torch.no_grad():
            target = F.softmax(model(images).float(), 1)
        return pgd_ascent(model, images, start, lambda logits: distance(logits, target), eps, steps)
