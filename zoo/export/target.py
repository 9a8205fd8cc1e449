"""The target of a file: the cost of a layer's forms, and how many channels its kernels take at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from zoo.errors import UserError
from zoo.export.forms import Form, Geometry
from zoo.export.latency_measured import MeasuredCost
from zoo.export.latency_model import BLOCK, estimated_cost
from zoo.latency.cache import cpu_features
from zoo.latency.session import default_threads, resolve_device
from zoo.latency.time_limit import TimeIsUp, TimeLimit

TargetName = Literal["cpu", "cuda", "generic"]
Cost = Callable[[Geometry, Sequence[Form]], list[float]]
"""Costs of forms of one layer, in one unit: the smallest is the fastest."""


@dataclass(frozen=True)
class Target:
    """The target of an exported file.

    Attributes:
        name: ``cpu`` or ``cuda`` of this machine, or ``generic``.
        block: channels that its kernels take at once: ranks are padded up to multiples if that is faster.
        cost: of a layer's forms.
        threads: of one operator on the CPU.
        limit: of the time that measurements take together.
    """

    name: TargetName
    block: int
    cost: Cost
    threads: int
    limit: TimeLimit = field(default_factory=TimeLimit)

    def costs(self, problem: Geometry, forms: Sequence[Form]) -> tuple[list[float], bool]:
        """Return the cost of each form, and whether it is a time: when the time limit is over it is an estimate."""
        try:
            return self.cost(problem, forms), self.is_measured
        except TimeIsUp:
            return estimated_cost(problem, forms), False

    @property
    def is_measured(self) -> bool:
        """Whether costs are times on this machine, in milliseconds; otherwise they are estimates without a unit."""
        return self.name != "generic"

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The device on which files for the target run here."""
        return "cuda" if self.name == "cuda" else "cpu"


def open_target(name: TargetName = "generic", threads: int | None = None, limit: TimeLimit | None = None) -> Target:
    """Return a target by name.

    Args:
        name: ``generic`` needs no machine and gives the same file everywhere.
        threads: that the file will run with; None: `default_threads`.
        limit: of the time that measurements take together; None: none.

    Raises:
        UserError: there is no such target, or no GPU for ``cuda``.
    """
    threads, limit = threads or default_threads(), limit or TimeLimit()
    if name == "generic":
        return Target(name, BLOCK, estimated_cost, threads)
    if name not in ("cpu", "cuda"):
        raise UserError(f"unknown target {name!r}: choose from cpu, cuda, generic")
    device = resolve_device(name)
    block = 16 if device == "cpu" and "avx512f" in cpu_features() else 8
    return Target(name, block, MeasuredCost(device, threads, limit=limit), threads, limit)
