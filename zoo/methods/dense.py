"""The reference: the unchanged backbone."""

import copy
from dataclasses import dataclass

from torch import nn

from zoo.budget import Budget
from zoo.errors import UserError
from zoo.lowrank.factorize import Ranks
from zoo.methods._base import Method


@dataclass(frozen=True)
class Dense(Method):
    """The uncompressed backbone under plain training: the reference for every other method."""

    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Return no ranks; a budget is an error."""
        if budget is not None:
            raise UserError("method 'dense' does not compress: leave the budget out or choose another method")
        return {}

    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Return the model itself."""
        return model

    def deploy(self, model: nn.Module) -> nn.Module:
        """Return a copy."""
        return copy.deepcopy(model)
