"""Lightning callbacks; the constraints and the pruning of ranks and channels work in any LightningModule."""

from zoo.callbacks._rank_schedule import RankSchedule
from zoo.callbacks._sensitivity import Sensitivity
from zoo.callbacks._step_hook import StepHook
from zoo.callbacks._trainer_callbacks import peers
from zoo.callbacks.averaging import ExponentialAverage
from zoo.callbacks.best import BestCheckpoint
from zoo.callbacks.channel_pruning import ChannelPruning
from zoo.callbacks.conditioning import ConditioningMonitor
from zoo.callbacks.dynamical_lowrank import DynamicalLowRank
from zoo.callbacks.gradient_alignment import GradientAlignment, InputGradients
from zoo.callbacks.held_out_sensitivity import HeldOutSensitivity
from zoo.callbacks.layer_history import LayerHistory
from zoo.callbacks.mask_search import MaskSearch
from zoo.callbacks.nested import OrderedClamp, OrderedRetraction
from zoo.callbacks.overfitting import OverfittingGuard
from zoo.callbacks.rank_pruning import RankPruning
from zoo.callbacks.retraction import OrthonormalRetraction
from zoo.callbacks.spectrum import SpectrumClamp
from zoo.callbacks.update_pruning import UpdatePruning

__all__ = [
    "BestCheckpoint",
    "ChannelPruning",
    "ConditioningMonitor",
    "DynamicalLowRank",
    "ExponentialAverage",
    "GradientAlignment",
    "HeldOutSensitivity",
    "InputGradients",
    "LayerHistory",
    "MaskSearch",
    "OrderedClamp",
    "OrderedRetraction",
    "OrthonormalRetraction",
    "OverfittingGuard",
    "RankPruning",
    "RankSchedule",
    "Sensitivity",
    "SpectrumClamp",
    "StepHook",
    "UpdatePruning",
    "peers",
]
