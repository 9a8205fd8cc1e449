"""Accuracy when images and weights move together.

Tsai, Hsu, Yu, Chen: Non-singular adversarial robustness of neural networks, ICASSP 2021, arXiv 2102.11935.
"""

from dataclasses import dataclass

from torch import Tensor

from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext
from zoo.sensitivity.weight_ascent import ascend, movable


@dataclass(frozen=True, kw_only=True)
class Joint(Probe):
    """Accuracy after PGD on images and weights at once, within eps (Linf) and a relative radius of every layer.

    One movement of the weights serves all images; each image has its own perturbation.
    """

    radii: tuple[float, ...] = (0.0, 0.0005, 0.001, 0.002)
    """Relative radii of the weights, see `zoo.probes.weights`."""
    steps: int = 10
    """Gradient steps, each over all images."""

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return the cases: fixed images and moving images, each at all radii."""
        return [{"eps": eps, "radius": radius} for eps in dict.fromkeys((0.0, context.eps)) for radius in self.radii]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Classify the moved images with the moved weights: bool (N,)."""
        eps, radius = float(case["eps"]), float(case["radius"])
        with movable(context.model) as weights:
            return context.correct(ascend(context, weights, context.images, radius, eps, self.steps))
