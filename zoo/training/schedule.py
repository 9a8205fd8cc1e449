"""Learning rates over a run."""

import math
from collections.abc import Callable

DROPS = (70 / 120, 100 / 120)
"""Points where the multistep schedule drops, as shares of the run (CondLR's scripts: epochs 70 and 100 of 120)."""
FIRST, LAST = 1 / 25, 1 / 250_000
"""Start and end of onecycle, as shares of the largest rate (the defaults of torch's OneCycleLR)."""


def learning_rate_factor(schedule: str, steps: int, warmup: float) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step.

    Args:
        schedule: ``cosine``, ``onecycle`` (half cosines from `FIRST` up to 1 and down to `LAST`; Smith and Topin,
            arXiv 1708.07120), ``multistep`` (times 0.3 at each of `DROPS`) or ``constant``.
        steps: of the whole run.
        warmup: share of the steps over which the factor rises to 1: linearly from near 0, or as onecycle does.
    """
    rising = round(warmup * steps)

    def factor(step: int) -> float:
        if schedule == "onecycle":
            if step < rising:
                return _half_cosine(FIRST, 1.0, step / rising)
            return _half_cosine(1.0, LAST, (step - rising) / max(1, steps - 1 - rising))
        if step < rising:
            return (step + 1) / rising
        if schedule == "cosine":
            return _half_cosine(1.0, 0.0, (step - rising) / max(1, steps - rising))
        if schedule == "multistep":
            return 0.3 ** sum(step >= drop * steps for drop in DROPS)
        return 1.0

    return factor


def _half_cosine(start: float, end: float, share: float) -> float:
    """Return the value of a cosine between two values after a share of the way."""
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0)))


def ramp(step: int, steps: int, share: float) -> float:
    """Return the height of a linear ramp over the first share of a run: 1 from then on.

    Args:
        step: the current one, from 0.
        steps: of the whole run.
        share: of them, in [0, 1]; 0 means that there is no ramp.
    """
    rising = round(share * steps)
    return min(1.0, (step + 1) / rising) if rising else 1.0
