"""The contract of a method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.budget import Budget
from zoo.lowrank.factorize import Layer, LayerReport, Ranks, report
from zoo.lowrank.layers import factorized_layers
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


class Objective(Protocol):
    """Maps a model, images (B, C, H, W) in [0, 1] and labels (B,) to ``loss``, ``logits`` and further scalars to log.

    Probabilities (B, K) replace the labels if they are given; see `Method.trains_several` for who may give them.
    """

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, soft_targets: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss."""


def cross_entropy(
    model: nn.Module, images: Tensor, labels: Tensor, soft_targets: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the cross-entropy at the images, with the labels or with soft targets, and the logits."""
    logits = model(images)
    loss = F.cross_entropy(logits, labels if soft_targets is None else soft_targets)
    return {"loss": loss, "logits": logits.detach()}


class Calibration(NamedTuple):
    """Training images whose outputs in the dense model the initial factors preserve.

    Attributes:
        images: how many.
        adversarial: whether the training's adversary attacks them in the dense model; otherwise they are clean.
    """

    images: int
    adversarial: bool


@dataclass(frozen=True)
class Method(ABC):
    """A way to compress and train a network.

    A subclass is a frozen dataclass in a file of its own, whose name is the method's. Its fields are the
    hyper-parameters: they become command-line flags (``--method.FIELD``), with the text under each field
    as help, and are saved with every run. The class docstring's first line is the method's description.
    """

    trains_several: ClassVar[bool] = False
    """Whether a step trains several networks of different shapes, the smaller ones on the answers of the largest.

    Such a step cannot be compiled or captured, and its adversary must take soft targets.
    """

    fine_tunes: ClassVar[bool] = False
    """Whether it trains few numbers of a trained network, which it must be given and whose form it keeps."""

    @abstractmethod
    def plan(self, model: nn.Module, budget: Budget | None) -> Ranks:
        """Choose the rank of each layer of a dense model for a budget (None: the method's default).

        Raises:
            UserError: the budget cannot be met, or the method has no use for one.
        """

    @abstractmethod
    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Convert a dense model to its trainable form, in place, and return it.

        The same call rebuilds a saved model: build the dense one, convert it with the saved ranks, load
        the weights.
        """

    def compress(self, model: nn.Module, budget: Budget | None) -> nn.Module:
        """Convert a dense model to its trainable form for a budget, in place and without data; return it.

        Raises:
            UserError: see `plan`; or the method compresses only during training.
        """
        return self.convert(model, self.plan(model, budget))

    def adapt_(self, model: nn.Module) -> None:  # noqa: B027
        """Give a converted model, with the weights that it starts from, the form that trains, in place.

        By default that is the form of `convert`. The model answers the same before and after.
        """

    def merge_(self, model: nn.Module) -> None:  # noqa: B027
        """Give a trained model the form of `convert` again, in place; it answers the same before and after."""

    @property
    def keeps_weights(self) -> bool:
        """Whether `convert` starts from the dense model's weights, so that they matter."""
        return True

    @property
    def calibrated_on(self) -> Calibration | None:
        """The images to which factors are fitted after `convert` when a training starts; None: no fit."""
        return None

    def ranks(self, model: nn.Module) -> Ranks:
        """Return the ranks from which `convert` rebuilds the model: the current rank of each factorized layer.

        A method that makes layers narrower instead returns their widths.
        """
        return {name: layer.rank for name, layer in factorized_layers(model)}

    def describe_layers(self, layers: list[Layer], ranks: Ranks) -> list[LayerReport]:
        """Return the outcome for each layer of the dense model, for the card."""
        return report(layers, ranks)

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, objective: Objective = cross_entropy
    ) -> dict[str, Tensor]:
        """Return ``loss`` (differentiable), ``logits``, and any further scalars to log.

        A method with a penalty adds it to the loss of ``objective``, so that it works with any adversary.

        Args:
            model: takes images in [0, 1], returns logits.
            images: (B, C, H, W) in [0, 1].
            labels: (B,), class indices.
            objective: the cross-entropy, or an adversary's loss.
        """
        return objective(model, images, labels)

    def searched_on(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the model is the network that the adversary of the next `loss` searches on."""
        return nullcontext()

    def parameter_groups(self, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups; by default vectors (biases, normalisation) do not decay."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the Lightning callbacks that the method needs during training.

        Args:
            budget: as given to `plan`.
            held_out: validation images, for methods that measure on them; None if there are none.
        """
        return []

    def calibrate(self, model: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> None:  # noqa: B027
        """Estimate on training images what the final weights leave open, in place; by default, nothing.

        Args:
            model: trained, in eval mode; takes images in [0, 1].
            batches: gives a few training batches, attacked on the model as it is when they are taken.
        """

    @abstractmethod
    def deploy(self, model: nn.Module) -> nn.Module:
        """Return a copy of a trained model in its deployed form: plain layers, nothing that only training uses."""
