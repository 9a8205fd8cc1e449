"""Methods of compression and training: one method is one file of this package."""

from zoo.methods._base import Calibration, Method, Objective, cross_entropy
from zoo.plugins import Plugins

METHODS: Plugins[Method] = Plugins("method", "zoo.methods", Method)

__all__ = ["METHODS", "Calibration", "Method", "Objective", "cross_entropy"]
