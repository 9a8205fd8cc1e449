"""CART: Choi et al., Revisiting weight averaging for model merging, 2024, arXiv 2412.12153."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.merging.rules._base import MergeRule


@dataclass(frozen=True)
class Cart(MergeRule):
    """The average plus the largest components of each run's distance from it."""

    share: float = 0.16
    """Share of the components of each distance that are kept."""
    scale: float = 1.0
    """Factor of the distances."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share {self.share} is invalid: keep more than 0 and at most 1")

    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Return the average plus the truncated distances."""
        middle = runs.mean(0)
        u, s, vh = torch.linalg.svd(runs - middle, full_matrices=False)
        k = max(1, round(self.share * s.shape[1]))
        return middle + self.scale * (u[:, :, :k] * s[:, None, :k] @ vh[:, :k]).sum(0)
