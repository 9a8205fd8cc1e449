"""TSV-M: Gargiulo et al., Task singular vectors: reducing task interference in model merging, CVPR 2025."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.merging.rules._base import MergeRule


@dataclass(frozen=True)
class TsvM(MergeRule):
    """The largest components of each run's change, made orthogonal to those of the other runs.

    Each of T runs gives 1 / T of its components; the left vectors of all together are replaced by the nearest matrix
    with orthonormal columns (their polar factor), and so are the right ones.
    """

    scale: float = 1.0
    """Factor of the change."""

    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Return the start plus the change."""
        u, s, vh = torch.linalg.svd(runs - start, full_matrices=False)
        k = max(1, s.shape[1] // len(runs))
        if k * len(runs) > s.shape[1]:  # more runs than components: only the strongest ones have room
            return start + self.scale * (runs - start).mean(0)
        left = torch.cat([*u[:, :, :k]], 1)
        right = torch.cat([*vh[:, :k].mT], 1)
        return start + self.scale * (polar(left) * s[:, :k].flatten()) @ polar(right).T


def polar(x: Tensor) -> Tensor:
    """Return the matrix with orthonormal columns that is nearest to X, (n, k), n >= k."""
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh
