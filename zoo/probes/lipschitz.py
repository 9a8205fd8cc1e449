"""The Lipschitz bound as a certificate.

Tsuzuku, Sato, Sugiyama: Lipschitz-margin training: scalable certification of perturbation invariance for deep
neural networks, NeurIPS 2018, arXiv 1802.04034.
"""

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from zoo.attacks import Victim, fp32, margin
from zoo.certificates.lipschitz import LipschitzBound, lipschitz_bound
from zoo.errors import UserError
from zoo.probes._base import Case, Probe
from zoo.sensitivity.subject import Subject


@dataclass(frozen=True, kw_only=True)
class LipschitzRadius(Probe):
    """Certified L2 accuracy: images whose margin is above what the network's Lipschitz bound lets it change.

    With ||f(x) - f(y)|| <= L ||x - y||, a difference of two logits changes by at most sqrt(2) L eps, so a margin
    f_label - max_other f above that keeps the class (proposition 1 of the paper). A lower bound of the accuracy
    under any attack, usually a loose one; logits are computed in fp32.
    """

    eps: tuple[float, ...] = (0.1, 0.2, 0.3)
    """L2 radii in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if not all(e >= 0 for e in self.eps):
            raise UserError(f"{self!r}: an eps is 0 or more")

    def cases(self, subject: Subject) -> list[Case]:
        """One case per radius."""
        return [{"norm": "L2", "eps": e} for e in self.eps]

    def passed(self, subject: Subject, case: Case) -> Tensor:
        """Say which images are classified rightly by more than sqrt(2) L eps: bool (N,).

        Raises:
            ValueError: there is no bound, see `obstacle`.
        """
        bound = _bound(subject)
        if bound.value is None:
            raise ValueError(bound.obstacle)
        with fp32(subject.device), torch.no_grad():
            logits = Victim(subject.model, subject.batch_size).logits(subject.images)
        return -margin(logits, subject.labels) > math.sqrt(2) * bound.value * float(case["eps"])

    def obstacle(self, subject: Subject) -> str:
        """Say why the network has no Lipschitz bound."""
        return _bound(subject).obstacle


_BOUNDS: WeakKeyDictionary[Subject, LipschitzBound] = WeakKeyDictionary()


def _bound(subject: Subject) -> LipschitzBound:
    """Return the bound of a subject's model, computed once."""
    if subject not in _BOUNDS:
        _, channels, height, width = subject.images.shape
        with fp32(subject.device):
            _BOUNDS[subject] = lipschitz_bound(subject.model, (channels, height, width))
    return _BOUNDS[subject]
