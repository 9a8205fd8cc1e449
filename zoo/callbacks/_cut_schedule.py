"""Base of the callbacks that cut ranks or widths at a few points of the training."""

from typing import Any

import lightning.pytorch as pl

from zoo.callbacks._rank_schedule import RankSchedule, steps_taken
from zoo.callbacks._sensitivity import Sensitivity
from zoo.errors import UserError


class CutSchedule(RankSchedule):
    """A callback that cuts ranks or widths a few times, between two points of the training.

    Args:
        cuts: how often, at least once.
        window: steps before a cut over which gradients are gathered, at least one.
        sensitivity: decides which layers lose more or less than others; None: nothing is measured.
        sensitivity_range: difference between the shares that the least and the most sensitive layer lose.
        network: see `RankSchedule`.

    Attributes:
        made: how many cuts have been made.
        measured: the sensitivities, from the first cut on.
        gathered: statistics of the gradients since the last cut.
        history: of each cut, the step and the ranks (or widths) after it; of the first, the sensitivities too.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(
        self, cuts: int, window: int, sensitivity: Sensitivity | None, sensitivity_range: float, network: str
    ) -> None:
        super().__init__(network)
        if cuts < 1 or window < 1:
            raise UserError("cuts and window must be at least 1: one cut, and one step of gradients before it")
        if sensitivity is not None and not 0 < sensitivity_range <= 1:
            raise UserError(f"sensitivity_range {sensitivity_range} is invalid: give more than 0 and at most 1")
        self.cuts, self.window = cuts, window
        self.sensitivity, self.sensitivity_range = sensitivity, sensitivity_range
        self.measured: dict[str, float] = {}
        self.gathered: dict[str, Any] = {}
        self.made = 0
        self._steps: list[int] = []

    @property
    def done(self) -> bool:
        """Whether the ranks or widths are final."""
        return self.made == self.cuts

    def due(self, trainer: pl.Trainer) -> int:
        """Return how many cuts should have been made by now."""
        return sum(step <= steps_taken(trainer) for step in self._steps)

    def is_near(self, trainer: pl.Trainer) -> bool:
        """Return whether the next cut is close enough that gradients are gathered for it."""
        return steps_taken(trainer) >= self._steps[self.made] - self.window

    def record(self, trainer: pl.Trainer, cuts: int, ranks: dict[str, int], *, first: bool) -> None:
        """Record a cut, and drop the statistics that were gathered for it.

        Args:
            trainer: at whose current step the cut was made.
            cuts: how many have been made, this one included.
            ranks: (or widths) after it.
            first: whether the sensitivities were measured for it.
        """
        self.gathered, self.made = {}, cuts
        cut = {"step": trainer.global_step, "ranks": ranks}
        self.history.append(cut | ({"sensitivity": self.measured} if first else {}))
