"""A trained network whose answers replace labels: (robust) distillation."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries import ADVERSARIES, Adversary
from zoo.backbone.folded import folded
from zoo.data import DataSet
from zoo.errors import UserError
from zoo.hub.runs import read_run
from zoo.runs.card import Card
from zoo.runs.config import TrainConfig
from zoo.runs.run import Run


@dataclass(frozen=True)
class Teacher:
    """Gives the soft targets of a training: its probabilities on clean images, at temperature 1.

    It is not a module, so that neither optimizers nor averages nor checkpoints see its weights.

    Attributes:
        name: of the run or the published model.
        sha256: of its weights file.
        network: its deployed form with BatchNorm folded, in eval mode, without gradients.
    """

    name: str
    sha256: str
    network: nn.Module

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the probabilities of each class, fp32: (B, C, H, W) in [0, 1] to (B, K)."""
        return F.softmax(self.network(images).float(), 1)

    def to(self, device: torch.device) -> None:
        """Move the weights, in place."""
        self.network.to(device)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        """Return itself: a copy of a training, which holds averages, shares the teacher."""
        return self


def teacher_run(config: TrainConfig) -> Run | None:
    """Open the run of a recipe's teacher; None: it has none.

    Raises:
        UserError: it is neither a run nor a published model.
    """
    return None if config.teacher is None else read_run(config.teacher)


def open_teacher(run: Run, data: DataSet, adversary: Adversary) -> Teacher:
    """Load a teacher, after checking that it can teach.

    Args:
        run: the teacher's.
        data: of the student's training.
        adversary: of the student's training.

    Raises:
        UserError: it has other classes or another input size, its gradients are masked, its weights are damaged, or the
            adversary's loss cannot use its answers.
    """
    card = run.card
    _check_fit(run.name, card, data)
    if card.doubts:
        raise UserError(f"teacher {run.name} is not credible ({'; '.join(map(str, card.doubts))}): choose another one")
    if not adversary.takes_soft_targets:
        able = ", ".join(name for name in ADVERSARIES.names() if ADVERSARIES.get(name).takes_soft_targets)
        raise UserError(
            f"--teacher cannot be combined with --adversary {ADVERSARIES.name_of(adversary)}, whose loss needs labels: "
            f"choose from {able}"
        )
    return Teacher(run.name, card.weights.sha256, folded(run.model(), card.image_shape))


def _check_fit(name: str, card: Card, data: DataSet) -> None:
    if card.class_names != tuple(data.class_names):
        raise UserError(
            f"teacher {name} tells {_few(card.class_names)} apart, and the data has {_few(data.class_names)}: "
            "choose a teacher of the same classes"
        )
    if card.image_shape != data.image_shape:
        theirs, ours = (" x ".join(map(str, shape)) for shape in (card.image_shape, data.image_shape))
        raise UserError(f"teacher {name} takes {theirs} images, and the data has {ours}: choose one of that size")


def _few(names: tuple[str, ...]) -> str:
    """Describe classes by their number and the first of them."""
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
