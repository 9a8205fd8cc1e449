"""The sensitivity of each part of a network, which decides how much the part loses."""

from abc import ABC, abstractmethod

import lightning.pytorch as pl
from torch import nn


class Sensitivity(ABC):
    """Measures how much depends on each part of a network; called once, before the first cut."""

    def check(self, pl_module: pl.LightningModule) -> None:  # noqa: B027
        """Raise `UserError` before training if `measure` would fail later."""

    @abstractmethod
    def measure(self, pl_module: pl.LightningModule, parts: dict[str, list[nn.Parameter]]) -> dict[str, float]:
        """Return the sensitivity of each part, >= 0.

        Args:
            pl_module: in training.
            parts: its parameters, by the name of the part to which they belong.
        """
