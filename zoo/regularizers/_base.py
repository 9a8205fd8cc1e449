"""The contract of a regularizer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Regularizer(ABC):
    """A penalty on a network, on top of any loss.

    A subclass is a frozen dataclass in a file of its own, whose name is the regularizer's. Its fields are its
    hyper-parameters (``--regularize.FIELD``).
    """

    @abstractmethod
    def penalty(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return ``penalty`` (differentiable, weighted, to be added to the loss) and further scalars to log.

        Args:
            model: in training mode, and left so; takes images in [0, 1], returns logits.
            images: (B, C, H, W) in [0, 1].
            labels: (B,).

        Raises:
            UserError: the penalty is not defined for this network.
        """
