"""Accuracy when every weight moves by a relative radius, at random or in the worst direction.

Tsai, Hsu, Yu, Chen: Formalizing generalization and adversarial robustness of neural networks to weight
perturbations, NeurIPS 2021, arXiv 2103.02200; relative to each layer as in Wu, Xia, Wang, NeurIPS 2020,
arXiv 2004.05884.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext
from zoo.sensitivity.weight_ascent import ascend, movable, move_at_random


@dataclass(frozen=True, kw_only=True)
class Weights(Probe):
    """Accuracy on clean and on PGD images after ||dW||_F = radius ||W||_F in every layer that the device holds.

    The network is the deployed one, so both factors of a factorized layer move. The worst direction raises the
    cross-entropy of the evaluated images themselves; PGD images are made before the weights move.
    """

    radii: tuple[float, ...] = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.02)
    """Relative radii; 0 is the network itself."""
    draws: int = 5
    """Random directions over which accuracy is averaged."""
    steps: int = 10
    """Gradient steps towards the worst direction, each over all images."""

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return the cases: both kinds of images, both kinds of direction, each at all radii."""
        eps: dict[str, Case] = {"clean": {"eps": 0.0}, "pgd": {"eps": context.eps}}
        return [
            {"images": images, **eps[images], "direction": direction, "radius": radius}
            for images in ("clean", "pgd")
            for direction in ("random", "worst")
            for radius in self.radii
        ]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Classify with moved weights: bool (N,), or the share of draws."""
        images = context.images if case["images"] == "clean" else context.adversarial
        radius = float(case["radius"])
        if not radius:
            return context.correct(images)
        if case["direction"] == "random":
            draws = [self._random(context, images, radius, draw) for draw in range(self.draws)]
            return torch.stack(draws).float().mean(0)
        with movable(context.model) as weights:
            ascend(context, weights, images, radius, 0.0, self.steps)
            return context.correct(images)

    def _random(self, context: ProbeContext, images: Tensor, radius: float, draw: int) -> Tensor:
        # The same directions at every radius, so that only the length varies along the curve.
        generator = torch.Generator().manual_seed(self.seed * self.draws + draw)
        with movable(context.model) as weights:
            move_at_random(weights, radius, generator)
            return context.correct(images)
