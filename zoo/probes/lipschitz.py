"""The Lipschitz bound as a certificate.

Tsuzuku, Sato, Sugiyama: Lipschitz-margin training: scalable certification of perturbation invariance for deep
neural networks, NeurIPS 2018, arXiv 1802.04034.
"""

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from zoo.attacks import AttackedModel, fp32, margin
from zoo.certificates.lipschitz import LipschitzBound, lipschitz_bound
from zoo.errors import UserError
from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext


@dataclass(frozen=True, kw_only=True)
class LipschitzRadius(Probe):
    """Certified L2 accuracy: images whose margin exceeds the change that the network's Lipschitz bound allows.

    With ||f(x) - f(y)|| <= L ||x - y||, a difference of two logits changes by at most sqrt(2) L eps, so a margin
    f_label - max_other f above that keeps the class (proposition 1 of the paper). It is a lower bound of the accuracy
    under any attack, usually a loose one; logits are computed in fp32.
    """

    eps: tuple[float, ...] = (0.1, 0.2, 0.3)
    """L2 radii in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if not all(e >= 0 for e in self.eps):
            raise UserError(f"{self!r}: an eps is 0 or more")

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return one case per radius."""
        return [{"norm": "L2", "eps": e} for e in self.eps]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Return which images are classified correctly by more than sqrt(2) L eps: bool (N,).

        Raises:
            ValueError: there is no bound, see `obstacle`.
        """
        bound = _bound(context)
        if bound.value is None:
            raise ValueError(bound.obstacle)
        with fp32(context.device), torch.no_grad():
            logits = AttackedModel(context.model, context.batch_size).logits(context.images)
        return -margin(logits, context.labels) > math.sqrt(2) * bound.value * float(case["eps"])

    def obstacle(self, context: ProbeContext) -> str:
        """Return why the network has no Lipschitz bound."""
        return _bound(context).obstacle


_BOUNDS: WeakKeyDictionary[ProbeContext, LipschitzBound] = WeakKeyDictionary()


def _bound(context: ProbeContext) -> LipschitzBound:
    """Return the bound of a context's model, computed once."""
    if context not in _BOUNDS:
        _, channels, height, width = context.images.shape
        with fp32(context.device):
            _BOUNDS[context] = lipschitz_bound(context.model, (channels, height, width))
    return _BOUNDS[context]
