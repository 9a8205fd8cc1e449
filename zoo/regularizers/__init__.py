"""Penalties on top of the loss of any method and adversary: one penalty is one file of this package."""

from zoo.plugins import Plugins
from zoo.regularizers._base import Regularizer

REGULARIZERS: Plugins[Regularizer] = Plugins("regularizer", "zoo.regularizers", Regularizer)

__all__ = ["REGULARIZERS", "Regularizer"]
