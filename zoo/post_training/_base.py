"""The contract of a step after training, and the value it works on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lightning.pytorch.callbacks import Callback
from torch import nn

from zoo.methods import Method
from zoo.sensitivity.held_out import HeldOut


class FineTune(Protocol):
    """Train one parameter of a network on the clean training images, in place."""

    def __call__(
        self, layer: nn.Module, part: nn.Parameter, constraints: Sequence[Callback], epochs: int, lr: float
    ) -> None:
        """Train ``part`` of ``layer``; the callbacks keep the layer within its constraints."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, with everything that a step after training may use.

    Attributes:
        model: in the form that was trained, in eval mode, on the device where it was trained.
        method: by which it was trained.
        held_out: validation images, for all decisions, and the radius of the training.
        fine_tune: trains one of its parameters further.
    """

    model: nn.Module
    method: Method
    held_out: HeldOut
    fine_tune: FineTune


@dataclass(frozen=True)
class Finisher(ABC):
    """A last step after training, for a network of any method, whose form it keeps.

    A subclass is a frozen dataclass in a file of its own, whose name is the finisher's. Its fields are its
    hyper-parameters (``--finish.FIELD``).
    """

    @abstractmethod
    def refine(self, trained: TrainedNetwork) -> dict[str, Any]:
        """Change the trained weights in place, and return what was done, for the card."""

    def obstacle(self, adversarial: bool) -> str:
        """Return why this step has no meaning after a training with, or without, an adversary; or ``""``."""
        return ""

    def check(self, held_out: HeldOut) -> None:  # noqa: B027  # most finishers need nothing
        """Check, before a training, that `refine` will have what it needs.

        Raises:
            UserError: something is missing; the message says what to give.
        """
