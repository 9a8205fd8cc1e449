"""Accuracy under common corruptions.

Hendrycks, Dietterich: Benchmarking neural network robustness to common corruptions and perturbations, ICLR 2019,
arXiv 1903.12261.
"""

from dataclasses import dataclass
from zlib import crc32

import torch
from torch import Tensor

from zoo.corruptions import CORRUPTIONS, SEVERITIES, obstacle
from zoo.data import mixed_seed
from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext


@dataclass(frozen=True, kw_only=True)
class Corruptions(Probe):
    """Accuracy on noisy, blurred, snowed-on, foggy, distorted and compressed images, at five severities each.

    They are the corruptions of `zoo.corruptions`. An image's noise depends only on the seed, the case and the image's
    place, so neither the batch size nor the other cases change a figure.
    """

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return every corruption at every severity."""
        return [{"corruption": name, "severity": severity} for name in CORRUPTIONS for severity in SEVERITIES]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Classify the corrupted images: bool (N,)."""
        name, severity = str(case["corruption"]), int(case["severity"])
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, crc32(name.encode()), severity))
        corrupted = [
            CORRUPTIONS[name]((images * 255).round().byte(), severity, generator)
            for images in context.images.split(context.batch_size)
        ]
        return context.correct(torch.cat(corrupted).float().div(255))

    def obstacle(self, context: ProbeContext) -> str:
        """Require one or three channels and sides of 8 pixels or more."""
        return obstacle(context.images)
