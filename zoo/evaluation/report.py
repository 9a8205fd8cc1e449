"""All standard measurements on a finished network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.backbone.folded import folded
from zoo.certificates.lipschitz import LipschitzBound, lipschitz_bound
from zoo.evaluation.conditioning import condition_numbers
from zoo.evaluation.robustness import evaluate
from zoo.evaluation.sanity import sanity
from zoo.evaluation.sweeps import QUICK, Sweep
from zoo.runs.records import Evaluation, Sanity


@dataclass(frozen=True)
class Report:
    """The measurements on one network.

    Attributes:
        evaluations: clean accuracy first, then attacks.
        sanity: checks of their credibility.
        condition_numbers: of each layer's weight, see `zoo.evaluation.condition_numbers`.
        lipschitz: bound on the Lipschitz constant of the map from image to logits.
    """

    evaluations: list[Evaluation]
    sanity: Sanity
    condition_numbers: dict[str, float | None]
    lipschitz: LipschitzBound

    @property
    def max_condition_number(self) -> float | None:
        """The largest condition number of a layer, None if no layer has one."""
        return max((k for k in self.condition_numbers.values() if k is not None), default=None)

    @property
    def lipschitz_bound(self) -> float | None:
        """The value of the Lipschitz bound, None if there is none."""
        return self.lipschitz.value


def quick_evaluation(
    deployed: nn.Module,
    trained: nn.Module,
    images: Tensor,
    labels: Tensor,
    sweeps: Sequence[Sweep] = QUICK,
    *,
    batch_size: int = 250,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Report:
    """Make the standard measurements of a finished training: attacks, condition numbers, the Lipschitz bound.

    Args:
        deployed: the network in its deployed form, in eval mode; images in [0, 1] to logits.
        trained: the same network in the form it was trained in.
        images: uint8 (N, C, H, W), of the test split.
        labels: (N,).
        sweeps: the attacks.
        batch_size, device, progress: see `zoo.evaluation.evaluate`.
    """
    image_shape = (images.shape[1], images.shape[2], images.shape[3])
    exported = folded(deployed, image_shape)
    found = evaluate(exported, images, labels, sweeps, batch_size=batch_size, device=device, progress=progress)
    return Report(
        found,
        sanity(exported, images, labels, found),
        condition_numbers(trained),
        lipschitz_bound(deployed, image_shape),
    )
