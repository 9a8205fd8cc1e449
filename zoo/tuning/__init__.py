"""Hyper-parameter search with Optuna: every trial is a RUN, and any number of processes share one storage."""

from zoo.tuning.spread import Command, work_on
from zoo.tuning.sweep import Plan, Settings, Sweep

__all__ = ["Command", "Plan", "Settings", "Sweep", "work_on"]
