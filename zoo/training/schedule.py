"""Learning rates over a run."""

import math
from collections.abc import Callable

DROPS = (70 / 120, 100 / 120)
"""Where the multistep schedule drops, as shares of the run (CondLR's scripts: epochs 70 and 100 of 120)."""


def learning_rate_factor(schedule: str, steps: int, warmup: float) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step.

    Args:
        schedule: ``cosine``, ``multistep`` (times 0.3 at each of `DROPS`) or ``constant``.
        steps: of the whole run.
        warmup: share of the steps over which the factor rises linearly from near 0 to 1.
    """
    rising = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if schedule == "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, steps - rising))
        if schedule == "multistep":
            return 0.3 ** sum(step >= drop * steps for drop in DROPS)
        return 1.0

    return factor
