"""Steps between the training of a network and its measurement: one kind is one file of this package."""

from zoo.plugins import Plugins
from zoo.post_training._base import FineTune, Finisher, TrainedNetwork

FINISHERS: Plugins[Finisher] = Plugins("finisher", "zoo.post_training", Finisher)

__all__ = ["FINISHERS", "FineTune", "Finisher", "TrainedNetwork"]
