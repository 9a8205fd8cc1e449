"""Attacks on a classifier: one attack is one file of this package."""

from zoo.attacks._answers import checked_logits
from zoo.attacks._attacked_model import AttackedModel, Gradients, Queries, fp32
from zoo.attacks._base import Attack, Outcome
from zoo.attacks._losses import cross_entropy, margin
from zoo.attacks._minimum_norm import MinimumNorm
from zoo.attacks._threat import NORMS, Norm, check_eps, distance, format_eps, parse_eps, project, steepest
from zoo.plugins import Plugins

ATTACKS: Plugins[Attack] = Plugins("attack", "zoo.attacks", Attack)

__all__ = [
    "ATTACKS",
    "NORMS",
    "Attack",
    "AttackedModel",
    "Gradients",
    "MinimumNorm",
    "Norm",
    "Outcome",
    "Queries",
    "check_eps",
    "checked_logits",
    "cross_entropy",
    "distance",
    "format_eps",
    "fp32",
    "margin",
    "parse_eps",
    "project",
    "steepest",
]
