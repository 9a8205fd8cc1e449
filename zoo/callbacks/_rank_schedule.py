"""Base of the callbacks that change ranks or widths during training."""

import math
import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.callbacks._tied_state import renew
from zoo.callbacks._trainer_callbacks import peers
from zoo.errors import UserError, unknown_name


class RankSchedule(Callback):
    """A callback that changes the ranks or the widths of layers while they train.

    Args:
        network: name of the submodule that it works on, ``""``: the whole module.

    Attributes:
        history: the step and the ranks (or widths) after each change.
    """

    changes_often: ClassVar[bool] = False
    """Whether shapes change every few steps, so that recompiling each time can never pay."""

    saved: ClassVar[tuple[str, ...]] = ("history",)
    """Attributes that a checkpoint keeps, so that a resumed run makes the same changes."""

    def __init__(self, network: str = "") -> None:
        self.name = network
        self.history: list[dict[str, Any]] = []

    def network(self, module: nn.Module) -> nn.Module:
        """Return the network whose ranks or widths change.

        Raises:
            UserError: the module has no submodule of that name.
        """
        names = dict(module.named_modules())
        if self.name not in names:
            raise unknown_name("submodule", self.name, names)
        return names[self.name]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that every average of the weights can follow their shapes.

        Raises:
            UserError: one cannot.
        """
        if peers(trainer, StochasticWeightAveraging):
            raise UserError(
                f"StochasticWeightAveraging cannot be combined with {type(self).__name__}: its average keeps "
                "the shapes that the weights start with; average by zoo.callbacks.ExponentialAverage or "
                "Lightning's WeightAveraging"
            )

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the ranks or widths are final."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report a training that ended too early: the network is larger than the budget."""
        if not self.done:
            warnings.warn(
                f"the training ended before the last cut of {type(self).__name__}: let it go on for longer, or cut "
                "earlier",
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to make the same changes."""
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def go_back(self, trainer: pl.Trainer, state: dict[str, Any]) -> None:
        """Load the state of an earlier checkpoint, whose weights and ranks the module has loaded already."""
        self.load_state_dict(state)
        renew(trainer)


def training_steps(trainer: pl.Trainer) -> int:
    """Return the number of steps of the training, over which changes are scheduled.

    Raises:
        UserError: it has no end.
    """
    total = trainer.estimated_stepping_batches
    if total == float("inf"):
        raise UserError("ranks and widths fall over the whole training, which has no end: set max_epochs or max_steps")
    return int(total)


def steps_taken(trainer: pl.Trainer) -> int:
    """Return how many of its `training_steps` the training has completed.

    Under manual optimization a batch takes any number of steps of any number of optimizers. The share of the epochs or
    of ``max_steps`` then counts, whichever ends the training first.
    """
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    batches = trainer.num_training_batches * (trainer.max_epochs or 0)
    ends = (trainer.global_step, trainer.max_steps), (trainer.fit_loop.total_batch_idx, batches)
    return max(int(training_steps(trainer) * taken // end) for taken, end in ends if 0 < end < math.inf)


def trains(optimizer: Optimizer, parameter: Tensor) -> bool:
    """Return whether a parameter belongs to an optimizer."""
    return any(p is parameter for group in optimizer.param_groups for p in group["params"])


def check_goal(compression: float | None, tolerance: float | None) -> None:
    """Check that exactly one of the two limits is given.

    Raises:
        UserError: both or neither are given, or one is not between 0 and 1.
    """
    if (compression is None) == (tolerance is None):
        raise UserError("rank pruning needs a compression or a tolerance, and not both")
    for name, value in (("compression", compression), ("tolerance", tolerance)):
        if value is not None and not 0 < value < 1:
            raise UserError(f"{name} {value} is invalid: give a share between 0 and 1")
