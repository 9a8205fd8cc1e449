"""Leave a trained network unchanged."""

from dataclasses import dataclass
from typing import Any

from zoo.post_training._base import Finisher, TrainedNetwork


@dataclass(frozen=True)
class NoFinisher(Finisher):
    """No step: the network is measured as training left it."""

    def refine(self, trained: TrainedNetwork) -> dict[str, Any]:
        """Do nothing."""
        return {}
