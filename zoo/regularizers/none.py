"""No penalty."""

from dataclasses import dataclass

from torch import Tensor, nn

from zoo.regularizers._base import Regularizer


@dataclass(frozen=True)
class NoRegularizer(Regularizer):
    """No penalty: nothing is added to the loss."""

    def penalty(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return nothing."""
        return {}
