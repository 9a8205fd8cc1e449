"""Iso-C: Marczak et al., No task left behind: isotropic model merging with common and task-specific subspaces, 2025."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.merging.rules._base import MergeRule


@dataclass(frozen=True)
class IsoC(MergeRule):
    """The sum of the changes with all of its singular values made equal, so that no run's directions dominate.

    W = W_0 + scale * mean(s) U V^T with sum_t (W_t - W_0) = U diag(s) V^T: what `robust_lowrank` at tau 0 does to a
    weight, done to the change.
    """

    scale: float = 1.0
    """Factor of the change."""

    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Return the start plus the isotropic change."""
        u, s, vh = torch.linalg.svd((runs - start).sum(0), full_matrices=False)
        return start + self.scale * s.mean() * (u @ vh)
