"""What callbacks that change ranks or widths during training have in common."""

from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from zoo.callbacks._followers import renew


class RankSchedule(Callback):
    """A callback that changes the ranks or the widths of layers while they train.

    Attributes:
        history: the step and the ranks (or widths) after each change.
    """

    history: list[dict[str, Any]]

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the ranks or widths are final."""

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Take the state of an earlier checkpoint, whose weights and ranks the module has taken already."""
        self.load_state_dict(state)
        renew(trainer)
