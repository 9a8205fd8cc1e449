"""What a channel is worth: one criterion is one file of this package."""

from zoo.importance._base import Criterion
from zoo.plugins import Plugins

CRITERIA: Plugins[Criterion] = Plugins("criterion", "zoo.importance", Criterion)

__all__ = ["CRITERIA", "Criterion"]
