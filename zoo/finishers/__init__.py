"""What is done to a trained network before it is measured: one way is one file of this package."""

from zoo.finishers._base import Finisher
from zoo.plugins import Plugins

FINISHERS: Plugins[Finisher] = Plugins("finisher", "zoo.finishers", Finisher)

__all__ = ["FINISHERS", "Finisher"]
