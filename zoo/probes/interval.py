"""Interval bounds.

Gowal, Dvijotham, Stanforth, Bunel, Qin, Uesato, Arandjelovic, Mann, Kohli: On the effectiveness of interval bound
propagation for training verifiably robust models, arXiv 1810.12715.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor

from zoo.attacks import fp32
from zoo.certificates.interval import IntervalNetwork
from zoo.errors import UserError
from zoo.probes._base import Case, Probe
from zoo.sensitivity.probe_context import ProbeContext


@dataclass(frozen=True, kw_only=True)
class IntervalBounds(Probe):
    """Certified Linf accuracy: images that provably keep their class within eps, by interval bound propagation.

    It is a lower bound of the accuracy under any attack; see `zoo.certificates.interval` for the scope of the proof.
    """

    eps: tuple[float, ...] = (1e-4, 5e-4, 0.001, 0.002, 0.004)
    """Linf radii in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if not all(0 <= e <= 1 for e in self.eps):
            raise UserError(f"{self!r}: an Linf eps is in 0..1")

    def cases(self, context: ProbeContext) -> list[Case]:
        """Return one case per radius, the smallest first."""
        return [{"norm": "Linf", "eps": e} for e in sorted(self.eps)]

    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Return which images are classified correctly and certified within the case's radius: bool (N,)."""
        with fp32(context.device):
            return _proofs(context).certified(context, float(case["eps"]))

    def obstacle(self, context: ProbeContext) -> str:
        """Name the operations without a rule."""
        with fp32(context.device):
            return _proofs(context).network.obstacle


class _Proofs:
    """The proofs about one context: an image without a certificate at a radius has none at a larger one."""

    def __init__(self, context: ProbeContext) -> None:
        _, channels, height, width = context.images.shape
        self.network = IntervalNetwork(context.model, (channels, height, width))
        self._known: dict[float, Tensor] = {}

    def certified(self, context: ProbeContext, eps: float) -> Tensor:
        if eps not in self._known:
            smaller = max((e for e in self._known if e < eps), default=None)
            found = context.correct(context.images) if smaller is None else self._known[smaller].clone()
            # Two ends in float64 take four times the memory of the model's own pass.
            batch_size = max(1, context.batch_size // 4)
            images, labels = context.images[found], context.labels[found]
            found[found.clone()] = self.network.certified(images, labels, eps, batch_size)
            self._known[eps] = found
        return self._known[eps].clone()


_PROOFS: WeakKeyDictionary[ProbeContext, _Proofs] = WeakKeyDictionary()


def _proofs(context: ProbeContext) -> _Proofs:
    """Return the proofs about a context, made once: the graph takes seconds to trace."""
    if context not in _PROOFS:
        _PROOFS[context] = _Proofs(context)
    return _PROOFS[context]
