"""The importance of channels: one criterion is one file of this package."""

from zoo.channels.criteria._base import Criterion, Scores
from zoo.plugins import Plugins

CRITERIA: Plugins[Criterion] = Plugins("criterion", "zoo.channels.criteria", Criterion)

__all__ = ["CRITERIA", "Criterion", "Scores"]
