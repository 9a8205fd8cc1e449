"""Base of the methods that train factors."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from zoo.errors import UserError
from zoo.lowrank.factorize import Convolution, Layer, LayerReport, Ranks, factorize, fold, in_form
from zoo.methods._base import Calibration, Method

Init = Literal["weights", "outputs", "random"]


@dataclass(frozen=True, kw_only=True)
class FactorizedMethod(Method):
    """A network whose weights are products U S V^T of low rank."""

    init: Init = "weights"
    """Start the factors from the backbone's weights (truncated SVD), from the outputs of its layers on training images
    (the SVD whitened by the inputs' covariance), or at random (same norm)."""
    calibration: Literal["clean", "adversarial"] = "clean"
    """With init outputs: clean training images, or images attacked by the adversary."""
    calibration_images: int = 512
    """With init outputs: how many training images."""
    convolution: Convolution = "matrix"
    """Form of k x k convolutions: matrix (k x k, then 1 x 1) or tucker (1 x 1, k x k, 1 x 1)."""

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise UserError(f"calibration_images {self.calibration_images} is invalid: give at least 1 image")
        if self.calibration != "clean" and self.init != "outputs":
            raise UserError(f"calibration {self.calibration} goes with init outputs: give that too, or leave it out")

    @property
    def keeps_weights(self) -> bool:
        """Whether factors start from the dense weights, not at random."""
        return self.init != "random"

    @property
    def calibrated_on(self) -> Calibration | None:
        """The images on whose outputs the factors are fitted when a training starts."""
        if self.init != "outputs":
            return None
        return Calibration(self.calibration_images, adversarial=self.calibration == "adversarial")

    def convert(self, model: nn.Module, ranks: Ranks) -> nn.Module:
        """Replace each layer that has a rank by its factorization; a fit to outputs happens afterwards."""
        return factorize(model, ranks, "random" if self.init == "random" else "weights", self.convolution)

    def describe_layers(self, layers: list[Layer], ranks: Ranks) -> list[LayerReport]:
        """Return the outcome for each layer of the dense model, for the card."""
        return super().describe_layers(in_form(layers, self.convolution), ranks)

    def deploy(self, model: nn.Module) -> nn.Module:
        """Merge S into U (a Tucker-2 core stays), and multiply out the factors that do not pay."""
        return fold(model)
