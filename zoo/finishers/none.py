"""Leave a trained network as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.finishers._base import Finisher

if TYPE_CHECKING:
    from zoo.training.module import Classifier


@dataclass(frozen=True)
class NoFinisher(Finisher):
    """The network is measured as training left it."""

    def refine(self, module: "Classifier") -> dict[str, Any]:
        """Do nothing."""
        return {}
