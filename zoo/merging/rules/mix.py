"""Shares of runs by the cross-entropy method, as Transformer-squared mixes its experts (arXiv 2501.06252)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.merging.rules._base import Accuracies, Candidates, Merged, MergeRule, mean

ELITE = 0.25
"""Share of each generation from which the next one is drawn."""


@dataclass(frozen=True)
class Mix(MergeRule):
    """The average whose shares are best on validation images: a dial between clean and robust accuracy.

    Of svf runs this mixes their factors of the singular values, since U and V are those of the start. Shares are the
    softmax of numbers that the cross-entropy method finds; each run alone and their mean are in its first generation.
    """

    needs_start: ClassVar[bool] = False

    robustness: float = 0.5
    """The dial: weight of the accuracy under PGD, from 0 to 1; the rest is that of the clean accuracy."""
    population: int = 8
    """Mixtures in each generation."""
    generations: int = 4
    """Generations."""

    def __post_init__(self) -> None:
        if not 0 <= self.robustness <= 1:
            raise UserError(f"robustness {self.robustness} is invalid: give a weight from 0 to 1")
        if self.population < 2 or self.generations < 1:
            raise UserError("mix needs at least 2 mixtures and 1 generation")

    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Return the average: equal shares."""
        return runs.mean(0)

    def merge(self, candidates: Candidates) -> Merged:
        """Search the shares, and average."""
        count = len(candidates.runs)
        generator = torch.Generator().manual_seed(0)
        middle, width = torch.zeros(count), torch.ones(count)
        found: list[tuple[float, Tensor, Tensor, Accuracies]] = []
        drawn = torch.cat([torch.eye(count) * 100, torch.zeros(1, count)])
        for generation in range(self.generations):
            if generation:
                drawn = middle + width * torch.randn(self.population, count, generator=generator)
            for numbers in drawn:
                shares = numbers.softmax(0)
                measured = candidates.measure(mean(candidates.runs, shares.tolist()))
                score = (1 - self.robustness) * measured.clean + self.robustness * measured.robust
                found.append((score, numbers.clamp(max=2), shares, measured))
            found.sort(key=lambda x: x[0], reverse=True)
            elite = torch.stack([x[1] for x in found[: max(2, round(ELITE * self.population))]])
            middle, width = elite.mean(0), elite.std(0).clamp_min(0.1)
        _, _, shares, measured = found[0]
        by_name = {name: round(x, 4) for name, x in zip(candidates.names, shares.tolist(), strict=True)}
        outcome = {"shares": by_name, "clean": measured.clean, "robust": measured.robust, "mixtures": len(found)}
        return Merged(mean(candidates.runs, shares.tolist()), outcome)
