"""The contract of a finisher."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.training.module import Classifier


@dataclass(frozen=True)
class Finisher(ABC):
    """A last step after training, for a network of any method, whose form it keeps.

    A subclass is a frozen dataclass in a file of its own, whose name is the finisher's. Its fields are its
    hyper-parameters (``--finish.FIELD``).
    """

    @abstractmethod
    def refine(self, module: "Classifier") -> dict[str, Any]:
        """Change the trained weights in place, and return what was done, for the card.

        Args:
            module: after its training, on the device where it was trained, in eval mode, with the data it was
                trained on. What is decided is decided on its validation images.
        """

    def obstacle(self, adversarial: bool) -> str:
        """Return why this has no meaning after a training with, or without, an adversary; or ``""``."""
        return ""

    def check(self, module: "Classifier") -> None:  # noqa: B027  # most finishers need nothing
        """See, before a training, that there is what `refine` needs after it.

        Raises:
            UserError: there is not; the message says what to give.
        """
