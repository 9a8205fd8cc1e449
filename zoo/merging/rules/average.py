"""Model soups: Wortsman et al., Model soups: averaging weights of multiple fine-tuned models, ICML 2022."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zoo.errors import UserError
from zoo.merging.rules._base import Candidates, Merged, MergeRule, mean


@dataclass(frozen=True)
class Average(MergeRule):
    """The average of the weights; greedily, a run only takes part if the accuracy under attack does not fall.

    Factors of the same product differ, so products are averaged.
    """

    needs_start: ClassVar[bool] = False

    greedy: bool = True
    """Add the runs by their accuracy under PGD on validation images, best first; leave out those that lower it."""
    shares: str | None = None
    """Instead, the share of each run, such as 0.7,0.3: of two svf runs, a dial between them."""

    def __post_init__(self) -> None:
        _ = self.given

    @property
    def given(self) -> list[float] | None:
        """The given shares.

        Raises:
            UserError: they are no numbers, or do not sum to 1.
        """
        if self.shares is None:
            return None
        try:
            found = [float(x) for x in self.shares.split(",")]
        except ValueError:
            raise UserError(f"shares {self.shares!r} is invalid: give a number for each run, such as 0.7,0.3") from None
        if abs(sum(found) - 1) > 1e-6:
            raise UserError(f"shares {self.shares} sum to {sum(found):g}: they must sum to 1")
        return found

    def matrix(self, start: Tensor, runs: Tensor) -> Tensor:
        """Return the average."""
        return runs.mean(0)

    def merge(self, candidates: Candidates) -> Merged:
        """Average the runs."""
        if self.given is not None:
            if len(self.given) != len(candidates.runs):
                raise UserError(f"shares {self.shares} are {len(self.given)}, for {len(candidates.runs)} runs")
            return Merged(mean(candidates.runs, self.given), {"shares": self.given})
        if not self.greedy:
            return Merged(mean(candidates.runs))
        alone = [candidates.measure(run) for run in candidates.runs]
        order = sorted(range(len(alone)), key=lambda i: alone[i].robust, reverse=True)
        kept, best = order[:1], alone[order[0]].robust
        for i in order[1:]:
            found = candidates.measure(mean([candidates.runs[j] for j in (*kept, i)])).robust
            if found >= best:
                kept, best = [*kept, i], found
        outcome = {
            "alone": {candidates.names[i]: alone[i].robust for i in order},
            "kept": [candidates.names[i] for i in kept],
            "robust": best,
        }
        return Merged(mean([candidates.runs[i] for i in kept]), outcome)
