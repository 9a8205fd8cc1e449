"""Attacks on a classifier: one attack is one file of this package."""

from zoo.attacks._base import Attack, Outcome
from zoo.attacks._threat import NORMS, Norm, check_eps, format_eps, parse_eps
from zoo.attacks._victim import Gradients, Victim, fp32
from zoo.plugins import Plugins

ATTACKS: Plugins[Attack] = Plugins("attack", "zoo.attacks", Attack)

__all__ = [
    "ATTACKS",
    "NORMS",
    "Attack",
    "Gradients",
    "Norm",
    "Outcome",
    "Victim",
    "check_eps",
    "format_eps",
    "fp32",
    "parse_eps",
]
