"""What callbacks that change ranks or widths during training have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from zoo.callbacks._followers import renew
from zoo.errors import UserError


class RankSchedule(Callback):
    """A callback that changes the ranks or the widths of layers while they train.

    Attributes:
        history: the step and the ranks (or widths) after each change.
    """

    changes_often: ClassVar[bool] = False
    """Whether shapes change every few steps, so that compiling them anew each time can never pay."""

    history: list[dict[str, Any]]

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the ranks or widths are final."""

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Take the state of an earlier checkpoint, whose weights and ranks the module has taken already."""
        self.load_state_dict(state)
        renew(trainer)


def training_steps(trainer: pl.Trainer) -> int:
    """Return how many steps the training has, over which changes are laid out.

    Raises:
        UserError: it has no end.
    """
    total = trainer.estimated_stepping_batches
    if total == float("inf"):
        raise UserError("ranks and widths fall over the whole training, which has no end: set max_epochs or max_steps")
    return int(total)


def check_goal(compression: float | None, tolerance: float | None) -> None:
    """See that exactly one of the two says how far ranks fall.

    Raises:
        UserError: both or neither are given, or one is not between 0 and 1.
    """
    if (compression is None) == (tolerance is None):
        raise UserError("ranks that fall need a compression or a tolerance, not both or neither")
    for name, value in (("compression", compression), ("tolerance", tolerance)):
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} {value} is impossible: give a share between 0 and 1")
