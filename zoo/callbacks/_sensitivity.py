"""What decides how much each part of a network loses, apart from what its channels or components are worth."""

from abc import ABC, abstractmethod

import lightning.pytorch as pl
from torch import nn


class Sensitivity(ABC):
    """Measures how much depends on each part of a network; asked once, before the first cut."""

    def check(self, pl_module: pl.LightningModule) -> None:  # noqa: B027
        """Raise `UserError` before training if `measure` cannot be answered later."""

    @abstractmethod
    def measure(self, pl_module: pl.LightningModule, parts: dict[str, list[nn.Parameter]]) -> dict[str, float]:
        """Return it for each part, >= 0.

        Args:
            pl_module: in training.
            parts: parameters of it, by the name of the part that they make up.
        """
