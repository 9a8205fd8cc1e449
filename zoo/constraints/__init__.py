"""Constraints on factorized layers, for any training loop in PyTorch: no Lightning, no trainer."""

from zoo.constraints._base import BatchedConstraint, Constraint, Layers
from zoo.constraints.bounded_spectrum import BoundedSpectrum
from zoo.constraints.low_rank import LowRankConstraint
from zoo.constraints.ordered import OrderedOrthonormal, OrderedSpectrum
from zoo.constraints.orthonormal import Orthonormal

__all__ = [
    "BatchedConstraint",
    "BoundedSpectrum",
    "Constraint",
    "Layers",
    "LowRankConstraint",
    "OrderedOrthonormal",
    "OrderedSpectrum",
    "Orthonormal",
]
