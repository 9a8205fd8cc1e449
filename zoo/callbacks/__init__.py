"""Lightning callbacks; the constraints and rank pruning work in any LightningModule that holds factorized layers."""

from zoo.callbacks.averaging import ExponentialAverage
from zoo.callbacks.best import BestCheckpoint
from zoo.callbacks.conditioning import ConditioningMonitor
from zoo.callbacks.dynamical_lowrank import DynamicalLowRank
from zoo.callbacks.layer_history import LayerHistory
from zoo.callbacks.overfitting import OverfittingGuard
from zoo.callbacks.rank_pruning import RankPruning
from zoo.callbacks.retraction import OrthonormalRetraction
from zoo.callbacks.spectrum import SpectrumClamp

__all__ = [
    "BestCheckpoint",
    "ConditioningMonitor",
    "DynamicalLowRank",
    "ExponentialAverage",
    "LayerHistory",
    "OrthonormalRetraction",
    "OverfittingGuard",
    "RankPruning",
    "SpectrumClamp",
]
