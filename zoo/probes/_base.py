"""The contract of a probe."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from zoo.sensitivity.probe_context import ProbeContext

Case = dict[str, str | float]
"""The conditions of one figure of a probe, such as ``{"direction": "worst", "radius": 0.02}``."""


@dataclass(frozen=True, kw_only=True)
class Probe(ABC):
    """A series of figures; each says which images a network still classifies correctly.

    A subclass is a frozen dataclass in a file of its own, whose name is the probe's. Its fields are its settings;
    everything that distinguishes its figures is in their cases.
    """

    seed: int = 0
    """Seed of random choices."""

    @abstractmethod
    def cases(self, context: ProbeContext) -> list[Case]:
        """Return the cases to measure, in order."""

    @abstractmethod
    def passed(self, context: ProbeContext, case: Case) -> Tensor:
        """Return which images are classified correctly in a case: (N,), bool, or the share of random draws in 0..1."""

    def obstacle(self, context: ProbeContext) -> str:
        """Return why the probe cannot be applied to a network, or ``""``."""
        return ""
