"""Share of images that random transforms leave in their class with high probability.

Pautov, Tursynbek, Munkhoeva, Muravev, Petiushko, Oseledets: CC-Cert: a probabilistic approach to certify general
robustness of neural networks, AAAI 2022, arXiv 2109.10696; as C-SAM (arXiv 2601.20301) evaluates with it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.attacks import fp32
from zoo.corruptions.transforms import TRANSFORMS, drawn
from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext


@dataclass(frozen=True, kw_only=True)
class Transforms(Probe):
    """Correct images whose class a random transform changes with an estimated probability below a risk.

    With Z the largest change of a probability and d half the difference of the two largest, the class stays if Z < d,
    and P(Z >= d) <= min over t > 0 of E exp(t (Z - d)) (Chernoff). The expectation is the mean of n draws; the bound is
    the largest over several batches of draws, over a correction for finite samples: an estimate with high confidence,
    not a proof. Batches, correction and risk are this project's choice.
    """

    draws: int = 20
    """Transforms per image and batch."""
    batches: int = 3
    """Batches of draws, of which the worst counts."""
    risk: float = 1e-3
    """Largest probability of another class."""
    correction: float = 0.9
    """Divisor of the bound, for the finite sample."""

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return every transform of `zoo.corruptions.transforms`."""
        return [{"transform": name} for name in TRANSFORMS]

    @torch.no_grad()
    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Return which images are correct and stay so with the required probability: bool (N,)."""
        transform = TRANSFORMS[str(case["transform"])]
        generator = torch.Generator().manual_seed(self.seed)
        passed = []
        with fp32(context.device):
            parts = zip(context.images.split(context.batch_size), context.labels.split(context.batch_size), strict=True)
            for images, labels in parts:
                p = context.model(images).softmax(1)
                first, second = p.topk(2, 1).values.unbind(1)
                worst = torch.full_like(first, -math.inf)
                for _ in range(self.batches):
                    moved = [transform(images, drawn(images, generator)) for _ in range(self.draws)]
                    changes = torch.stack([(context.model(x).softmax(1) - p).abs().amax(1) for x in moved])
                    worst = torch.maximum(worst, log_chernoff(changes, (first - second) / 2))
                safe = worst - math.log(self.correction) < math.log(self.risk)
                passed.append(safe & (p.argmax(1) == labels))
        return torch.cat(passed)


def log_chernoff(draws: Tensor, d: Tensor) -> Tensor:
    """Return log of min over t of mean exp(t (Z - d)), t on a geometric grid from 0.1 to 10^4, at most 0.

    Args:
        draws: of Z, (n, B).
        d: thresholds, (B,).
    """
    t = torch.logspace(-1, 4, 60, device=draws.device).view(-1, 1, 1)
    logs = torch.logsumexp(t * (draws - d), dim=1) - math.log(len(draws))
    return logs.amin(0).clamp_max(0.0)
