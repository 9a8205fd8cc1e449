"""Kinds of adversarial training: one kind is one file of this package."""

from zoo.adversaries._base import Adversary, Threat
from zoo.plugins import Plugins

ADVERSARIES: Plugins[Adversary] = Plugins("adversary", "zoo.adversaries", Adversary)

__all__ = ["ADVERSARIES", "Adversary", "Threat"]
