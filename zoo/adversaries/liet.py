"""LIET: one gradient step from a start along the label's direction, with a penalty on the change of the answer.

Pan, Yao: Label information elimination training, ICCV 2025.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._ascent import gradient_of, searched, uniform_noise
from zoo.adversaries._base import Adversary, Threat
from zoo.attacks import project
from zoo.errors import UserError

GREY = 0.5
"""Pixel value of the grey images at which the direction of each class is computed."""
MIXED = (0.1, 0.5)
"""Least and largest share of a start's numbers that are noise; each step draws its share."""


@dataclass(frozen=True)
class LIET(Adversary):
    """Single-step training with a divergence penalty: more robust than n_fgsm at a third more time; takes no --steps.

    The share of each label that smoothing takes (0.6 in the paper) is split over the other classes at random. The
    direction of each class is the sign of the gradient at a grey image; the paper renews it every 20 steps, this
    computes it in each, so that a step depends on its batch alone.
    """

    takes_soft_targets: ClassVar[bool] = True

    beta: float = 100.0
    """Weight of the divergence at the end of the training; it rises to this value from 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise UserError(f"beta {self.beta} is invalid: the weight of the divergence must be 0 or more")

    @property
    def single_step(self) -> float:
        """The only step of the search."""
        return 1.0

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Return where the step begins: `loss` takes it, so that its forward pass serves both."""
        with searched(model):
            classes = model(images[:1]).shape[1]
            grey = torch.full_like(images[:1], GREY).repeat(classes, 1, 1, 1)
            every = torch.arange(classes, device=labels.device)
            ascent = gradient_of(model, grey, lambda z: F.cross_entropy(z, every, reduction="sum"))
        direction = ascent.sign()[labels]
        least, most = MIXED
        noisy = torch.rand_like(images) < least + (most - least) * torch.rand((), device=images.device)
        direction = torch.where(noisy, uniform_noise(images), direction)
        side = torch.rand_like(images[:, :1, :1, :1]).round() * 2 - 1
        return (images + threat.eps * side * direction).clamp_(0, 1)

    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return CE(f(x'), y) + beta t JS(f(x0), f(x')): x0 the start, x' one step further, t the share done.

        Soft targets take the place of the randomly smoothed labels y, in the step too.
        """
        start = adversarial.detach().requires_grad_()
        before = model(start).float()
        truth = threat.soft_targets
        if truth is None:
            truth = random_labels(before, labels, threat.label_smoothing)
        (gradient,) = torch.autograd.grad(F.cross_entropy(before, truth, reduction="sum"), start, retain_graph=True)
        moved = project(start.detach() + threat.eps * gradient.sign(), images, threat.eps, "Linf")
        after = model(moved).float()
        divergence = jensen_shannon(before, after)
        loss = F.cross_entropy(after, truth) + self.beta * threat.progress * divergence
        return {"loss": loss, "logits": after.detach(), "divergence": divergence}


def random_labels(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return 1 - smoothing on each label, and the rest split over the other classes at random: (B, K)."""
    others = torch.rand_like(logits).scatter(1, labels[:, None], 0.0)
    others = smoothing * others / others.sum(1, keepdim=True)
    return others.scatter(1, labels[:, None], 1 - smoothing)


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean Jensen-Shannon divergence of two batches of logits, in nats: (B, K) twice to a scalar."""
    p, q = F.log_softmax(one, 1), F.log_softmax(other, 1)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0))
    return (
        F.kl_div(middle, p, reduction="batchmean", log_target=True)
        + F.kl_div(middle, q, reduction="batchmean", log_target=True)
    ) / 2
