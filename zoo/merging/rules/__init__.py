"""Ways to merge networks that began as one: a way is one file of this package."""

from zoo.merging.rules._base import Accuracies, Candidates, Merged, MergeRule, State, mean
from zoo.plugins import Plugins

RULES: Plugins[MergeRule] = Plugins("merging rule", "zoo.merging.rules", MergeRule)

__all__ = ["RULES", "Accuracies", "Candidates", "MergeRule", "Merged", "State", "mean"]
