"""The target of a file: the cost of a layer's forms, and how many channels its kernels take at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from zoo.errors import UserError
from zoo.export.forms import Form, Geometry
from zoo.export.latency_measured import MeasuredCost
from zoo.export.latency_model import BLOCK, estimated_cost
from zoo.export.layer_in_runtime import LayerInRuntime
from zoo.latency.cache import TimeCache, cpu_features
from zoo.latency.session import default_threads, resolve_device
from zoo.latency.time_limit import TimeIsUp, TimeLimit
from zoo.runtimes import DEFAULT, RUNTIMES

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
        runtime: that the file will run in.
    """

    name: TargetName
    block: int
    cost: Cost
    threads: int
    limit: TimeLimit = field(default_factory=TimeLimit)
    runtime: str = DEFAULT

    def open_cache(self) -> TimeCache:
        """Return the cache of times in the target's runtime."""
        return TimeCache(self.device, self.threads, runtime=_versioned(self.runtime))

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


def open_target(
    name: TargetName = "generic",
    threads: int | None = None,
    limit: TimeLimit | None = None,
    runtime: str = DEFAULT,
) -> Target:
    """Return a target by name.

    Args:
        name: ``generic`` needs no machine and gives the same file everywhere.
        threads: that the file will run with; None: `default_threads`.
        limit: of the time that measurements take together; None: none.
        runtime: that the file will run in; forms are timed in it.

    Raises:
        UserError: there is no such target, no GPU for ``cuda``, or the runtime is not installed or runs on CPUs only.
    """
    threads, limit = threads or default_threads(), limit or TimeLimit()
    if name == "generic":
        return Target(name, BLOCK, estimated_cost, threads, limit, runtime)
    if name not in ("cpu", "cuda"):
        raise UserError(f"unknown target {name!r}: choose from cpu, cuda, generic")
    if name == "cuda" and runtime != DEFAULT:
        raise UserError(f"{runtime} runs on the CPU here: give --target cpu, or --runtime {DEFAULT}")
    device = resolve_device(name)
    block = 16 if device == "cpu" and "avx512f" in cpu_features() else 8
    runner = None if runtime == DEFAULT else LayerInRuntime(runtime, threads)
    cache = TimeCache(device, threads, runtime=_versioned(runtime))
    cost = MeasuredCost(device, threads, cache, limit, runner)
    return Target(name, block, cost, threads, limit, runtime)


def _versioned(runtime: str) -> str:
    """Return the name and version of a runtime other than ONNX Runtime, whose version every cache has."""
    return "" if runtime == DEFAULT else f"{runtime} {RUNTIMES.get(runtime)().version()}"
