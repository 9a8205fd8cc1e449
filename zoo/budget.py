"""Budgets of networks, and the code that the selection of ranks and of widths shares."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from zoo.errors import UserError

OVERSHOOT = 0.015
"""Share of the parameters by which the target may be overshot before ranks and widths are rounded more finely."""
BLOCKS = (16, 8, 4, 2, 1)
"""Steps between ranks or widths, fastest first: blocked CPU kernels and tensor cores want multiples of 16 or of 8."""
MOST = 0.95
"""Largest share of a layer to remove when shares follow sensitivities, unless the budget cannot be met otherwise."""
LEAST_COMPRESSION = 0.1
"""Least compression at the start of a training that lowers ranks: below it, factors no longer pay."""
HALVINGS = 30
"""Halvings of the interval in `bisect`: as many as fp32 can resolve."""


@dataclass(frozen=True)
class Budget:
    """How small the model must become; give a compression or a rank fraction.

    Attributes:
        compression: share of the dense model's parameters to remove, in (0, 1).
        rank_fraction: rank of each layer over its full rank min(n, m), in (0, 1], rounded up: CondLR's own
            definition, whose tables call 1 - rank_fraction the compression.
        macs_reduction: with a compression, share of the dense model's multiply-accumulates to remove, in (0, 1);
            None: whatever the compression gives.

    Raises:
        UserError: neither or both are given, one is out of range, or a rank fraction meets a macs_reduction.
    """

    compression: float | None = None
    rank_fraction: float | None = None
    macs_reduction: float | None = None

    def __post_init__(self) -> None:
        if (self.compression is None) == (self.rank_fraction is None):
            raise UserError("give either compression or rank_fraction, not both or neither")
        if self.compression is not None and not 0 < self.compression < 1:
            raise UserError(f"compression {self.compression} is invalid: give a share between 0 and 1, such as 0.8")
        if self.rank_fraction is not None and not 0 < self.rank_fraction <= 1:
            raise UserError(f"rank fraction {self.rank_fraction} is invalid: give a value in (0, 1], such as 0.2")
        if self.macs_reduction is not None and not 0 < self.macs_reduction < 1:
            raise UserError(f"macs_reduction {self.macs_reduction} is invalid: give a share between 0 and 1")
        if self.macs_reduction is not None and self.compression is None:
            raise UserError("macs_reduction goes with a compression: a rank fraction fixes every rank")


def larger_start(budget: Budget, times: float) -> Budget:
    """Return the initial budget of a training that starts with more parameters and removes them on the way.

    Args:
        budget: the final one.
        times: how many times its parameters the start has, as far as factors pay.

    Raises:
        UserError: the budget is a rank fraction, which fixes every rank, or limits multiply-accumulates too.
    """
    if budget.compression is None:
        raise UserError("ranks that adapt need a compression: a rank fraction fixes every rank")
    if budget.macs_reduction is not None:
        raise UserError("ranks that adapt go by what the loss depends on: leave the macs_reduction out")
    least = min(budget.compression, LEAST_COMPRESSION)
    return Budget(compression=max(1 - times * (1 - budget.compression), least))


def bisect(fits: Callable[[float], bool], good: float, bad: float) -> float:
    """Return the value closest to ``bad`` that fits, between one that fits and one that may not."""
    for _ in range(HALVINGS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def percent_removed(left: float, total: int) -> float:
    """Return the share of the parameters that is removed when ``left`` remain, in percent, rounded down to a tenth."""
    return math.floor(1000 * (1 - left / total)) / 10
