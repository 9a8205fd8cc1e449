"""Lightning callbacks; the two constraints work in any LightningModule that holds factorized layers."""

from zoo.callbacks.averaging import ExponentialAverage
from zoo.callbacks.conditioning import ConditioningMonitor
from zoo.callbacks.overfitting import OverfittingGuard
from zoo.callbacks.retraction import OrthonormalRetraction
from zoo.callbacks.spectrum import SpectrumClamp

__all__ = ["ConditioningMonitor", "ExponentialAverage", "OrthonormalRetraction", "OverfittingGuard", "SpectrumClamp"]
