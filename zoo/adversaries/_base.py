"""The contract of an adversary."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from zoo.attacks import check_eps
from zoo.errors import UserError


@dataclass(frozen=True)
class Threat:
    """The threat that training defends against: an Linf ball, and how thoroughly it is searched.

    Attributes:
        eps: radius in pixels of [0, 1].
        steps: gradient steps of the search.
        label_smoothing: of every cross-entropy.
        progress: share of the training that is done, 0 to 1, for weights that grow with it.
        soft_targets: probabilities (B, K) of a teacher, which replace the labels; None: there is no teacher.
        watch: receives each gradient in the images that the search computes; None: no observer.
    """

    eps: float = 8 / 255
    steps: int = 10
    label_smoothing: float = 0.0
    progress: float | Tensor = 0.0
    soft_targets: Tensor | None = None
    watch: Callable[[Tensor], None] | None = None

    def __post_init__(self) -> None:
        check_eps(self.eps, "Linf", pixels=1)
        if self.eps == 0:
            raise UserError("eps 0 leaves nothing to defend against: give a radius such as 8/255, or no --adversary")
        if self.steps < 1:
            raise UserError(f"steps {self.steps} is invalid: the search needs at least one")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label-smoothing must be in [0, 1), got {self.label_smoothing}")


@dataclass(frozen=True)
class Adversary(ABC):
    """The images at which the loss of a training step is taken, and that loss, for any method.

    Search and loss are separate, so that one search serves several losses at its result (see `zoo.training.awp`). A
    subclass is a frozen dataclass in a file of its own, whose name is the adversary's. Its fields are its
    hyper-parameters (``--adversary.FIELD``).
    """

    takes_soft_targets: ClassVar[bool] = False
    """Whether search and loss follow the threat's soft targets if it has any; if not, a teacher is refused."""

    @property
    def single_step(self) -> float | None:
        """Size of the search's only step in units of eps; None: it takes many.

        Training may learn to mislead a single step.
        """
        return None

    @property
    def reach(self) -> float:
        """Largest distance of the images that `search` returns, in units of eps."""
        return 1.0

    @abstractmethod
    def search(self, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> Tensor:
        """Return adversarial images, float32 (B, C, H, W), within `reach` times the threat's eps and [0, 1].

        Args:
            model: in training mode; takes images in [0, 1], returns logits.
            images: (B, C, H, W) in [0, 1].
            labels: (B,).
            threat: radius, steps, and the targets that replace or smooth the labels.
        """

    @abstractmethod
    def loss(
        self, model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, threat: Threat
    ) -> dict[str, Tensor]:
        """Return ``loss`` (differentiable), ``logits`` of what was trained on, and further scalars to log.

        Args:
            model, images, labels, threat: see `search`.
            adversarial: what the search found.
        """


def check_weight(beta: float) -> None:
    """Refuse a negative, infinite or undefined weight of a loss's second term.

    Raises:
        UserError: it is.
    """
    if not 0 <= beta < float("inf"):
        raise UserError(f"beta {beta} is invalid: the weight of the second term must be 0 or more")
