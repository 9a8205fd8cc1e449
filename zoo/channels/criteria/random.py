"""Chance: the reference that every criterion must beat."""

import torch
from torch import nn

from zoo.channels.criteria._base import Criterion, Scores
from zoo.channels.graph import ChannelGraph


class Random(Criterion):
    """Random numbers, the same at every call.

    Args:
        seed: of the numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def scores(self, network: nn.Module, graph: ChannelGraph, gathered: Scores) -> Scores:
        """Draw the scores."""
        generator = torch.Generator().manual_seed(self.seed)
        return {group: torch.rand(size, generator=generator) for group, size in graph.sizes.items()}
