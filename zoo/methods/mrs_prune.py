"""MRPF: channel pruning whose ratios follow how much robustness depends on each layer.

Bai, Tabia, Santos-Rodriguez: Beyond pruning criteria: the dominant role of fine-tuning and adaptive ratios in neural
network robustness, arXiv 2410.15176.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from zoo.budget import Budget
from zoo.errors import UserError
from zoo.methods._pruning import BACKBONE, ChannelMethod, compression
from zoo.sensitivity.held_out import HeldOut

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@dataclass(frozen=True)
class MrsPrune(ChannelMethod):
    """Channel pruning, less where robustness depends on the weights (module robust sensitivity), then fine-tuning.

    From the paper, of which only the abstract was available: one sensitivity to adversarial perturbation per module
    sets its ratio of structured pruning, with any criterion, before adversarial fine-tuning. This project's
    definitions: the sensitivity is the robust criticality of Zhu et al. (arXiv 2308.02533) per group of coupled
    channels, measured on validation images; the ratio is clip(level - sensitivity_range (t - mean t), 0, 0.95), t
    the logarithm of the sensitivity scaled to 0..1, with one level for the budget; without full fine-tuning, only
    normalisation and biases are trained after the cut.
    """

    renamed: ClassVar[Mapping[str, str]] = {"spare": "sensitivity_range"}

    criterion: Literal["l2", "batchnorm", "taylor", "lamp", "random"] = "l2"
    """The criterion that chooses the channels to remove in a layer."""
    ratio: Literal["adaptive", "uniform"] = "adaptive"
    """How much each layer loses: less if it is sensitive, or the same share in every layer."""
    sensitivity_range: float = 0.4
    """With adaptive ratios: the difference between the least and the most sensitive layer's share."""
    finetune: Literal["full", "norms"] = "full"
    """What to train after the cut: everything, or only normalisation and biases."""
    cuts: int = 1
    """Number of cuts to reach the budget, the last at up to twice the step of the first."""
    images: int = 256
    """With adaptive ratios: validation images that sensitivities are measured on."""
    climb: int = 5
    """With adaptive ratios: gradient steps of each layer's weights in their worst direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sensitivity_range <= 1 or self.cuts < 1 or self.images < 1 or self.climb < 1:
            raise UserError(
                "mrs_prune needs 0 < sensitivity_range <= 1, and at least one cut, one image and one step to climb"
            )
        if self.criterion == "taylor" and self.begin == 0:
            raise UserError("criterion taylor needs gradients from steps before the cut: give a begin above 0")

    def callbacks(self, budget: Budget | None, held_out: HeldOut | None = None) -> "list[Callback]":
        """Return the pruning."""
        from zoo.callbacks import ChannelPruning, HeldOutSensitivity  # a finished model needs no Lightning

        sensitivity = HeldOutSensitivity(held_out, self.images, self.climb)
        pruning = ChannelPruning(
            compression(budget),
            self.criterion,
            sensitivity if self.ratio == "adaptive" else None,
            self.sensitivity_range,
            self.finetune,
            begin=self.begin,
            end=min(0.9, max(2 * self.begin, self.begin + 0.1)),
            cuts=self.cuts,
            network=BACKBONE,
        )
        return [pruning]
