"""Randomised smoothing as a certificate.

Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing, ICML 2019, arXiv 1902.02918.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from zoo.attacks import AttackedModel, fp32
from zoo.certificates.smoothing import certified_radius
from zoo.data import mixed_seed
from zoo.errors import UserError
from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext


@dataclass(frozen=True, kw_only=True)
class RandomizedSmoothing(Probe):
    """Certified L2 accuracy of the smoothed classifier, the class that Gaussian noise leaves most often.

    It is another classifier than the network: it needs all its draws for each answer. Each certificate holds with
    probability 1 - alpha (Clopper-Pearson); an image without one counts as wrong. A network that was not trained
    with noise keeps few. The largest radius that n draws can prove is sigma Phi^-1(alpha^(1/n)).
    """

    sigmas: tuple[float, ...] = (0.12, 0.25)
    """Standard deviations of the noise, in pixels of [0, 1]."""
    eps: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4)
    """L2 radii in pixel units of [0, 1]."""
    draws: int = 200
    """Draws of noise for each image that certify; the paper has 100,000, which prove larger radii."""
    selection: int = 20
    """Further draws before these that choose the class."""
    alpha: float = 0.001
    """Probability that a certificate is wrong."""

    def __post_init__(self) -> None:
        if not all(e >= 0 for e in self.eps) or not all(sigma > 0 for sigma in self.sigmas):
            raise UserError(f"{self!r}: an eps is 0 or more, and a sigma above 0")
        if self.draws < 1 or self.selection < 1 or not 0 < self.alpha < 1:
            raise UserError(f"{self!r}: draws and selection must be at least 1, and alpha between 0 and 1")

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return one case per noise and radius; ``draws`` and ``alpha`` state what each certificate rests on."""
        return [
            {"norm": "L2", "draws": self.draws, "alpha": self.alpha, "sigma": sigma, "eps": e}
            for sigma in self.sigmas
            for e in self.eps
        ]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Return which images the smoothed classifier gets right and keeps within the case's radius: bool (N,)."""
        sigma = float(case["sigma"])
        known = _RADII.setdefault(context, {})
        if (self, sigma) not in known:
            known[self, sigma] = self._radii(context, sigma)
        return known[self, sigma] >= float(case["eps"])

    def _radii(self, context: ProbeContext, sigma: float) -> Tensor:
        """Return the certified radius of each image; -inf where the classifier abstains or is wrong."""
        classes, hits = [], []
        with fp32(context.device), torch.no_grad():
            attacked = AttackedModel(context.model, context.batch_size)
            for row, image in enumerate(context.images):
                # An image's noise depends on the seed and its place only; it has one direction for every sigma.
                generator = torch.Generator().manual_seed(mixed_seed(self.seed, row))
                chosen = self._answers(attacked, image, sigma, self.selection, generator).bincount().argmax()
                answers = self._answers(attacked, image, sigma, self.draws, generator)
                classes.append(chosen)
                hits.append((answers == chosen).sum())
        radii = certified_radius(torch.stack(hits).cpu(), self.draws, sigma, self.alpha)
        return torch.where(torch.stack(classes).cpu() == context.labels.cpu(), radii, -torch.inf)

    def _answers(
        self, attacked: AttackedModel, image: Tensor, sigma: float, draws: int, generator: torch.Generator
    ) -> Tensor:
        """Return the class of an image under each draw of noise; noisy pixels may leave [0, 1], as in the paper."""
        found = []
        for first in range(0, draws, attacked.batch_size):
            count = min(attacked.batch_size, draws - first)
            noise = torch.randn(count, *image.shape, generator=generator).to(image.device)
            found.append(attacked.logits(image + sigma * noise).argmax(1))
        return torch.cat(found)


_RADII: WeakKeyDictionary[ProbeContext, dict[tuple[RandomizedSmoothing, float], Tensor]] = WeakKeyDictionary()
