"""Lightning callbacks; the constraints and the pruning of ranks and channels work in any LightningModule."""

from zoo.callbacks.averaging import ExponentialAverage
from zoo.callbacks.best import BestCheckpoint
from zoo.callbacks.channel_pruning import ChannelPruning
from zoo.callbacks.conditioning import ConditioningMonitor
from zoo.callbacks.dynamical_lowrank import DynamicalLowRank
from zoo.callbacks.layer_history import LayerHistory
from zoo.callbacks.mask_search import MaskSearch
from zoo.callbacks.overfitting import OverfittingGuard
from zoo.callbacks.rank_pruning import RankPruning
from zoo.callbacks.retraction import OrthonormalRetraction
from zoo.callbacks.spectrum import SpectrumClamp

__all__ = [
    "BestCheckpoint",
    "ChannelPruning",
    "ConditioningMonitor",
    "DynamicalLowRank",
    "ExponentialAverage",
    "LayerHistory",
    "MaskSearch",
    "OrthonormalRetraction",
    "OverfittingGuard",
    "RankPruning",
    "SpectrumClamp",
]
