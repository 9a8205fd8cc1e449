"""Merge finished runs that began as one network into one run."""

from zoo.merging.config import MergeConfig
from zoo.merging.merge import merge_runs
from zoo.merging.rules import RULES, MergeRule

__all__ = ["RULES", "MergeConfig", "MergeRule", "merge_runs"]
