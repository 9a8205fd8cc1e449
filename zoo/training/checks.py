"""What goes wrong in a training step or between processes, reported in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zoo.errors import UserError


def check_finite(loss: Tensor, where: str, lr: float) -> None:
    """Refuse a loss that is not finite.

    Args:
        loss: a scalar.
        where: the step, in words.
        lr: the largest learning rate of the training.

    Raises:
        UserError: it is infinite or not a number.
    """
    if not torch.isfinite(loss):
        raise UserError(f"the loss became {loss.item()} at {where}: lower --lr (now {lr}) or lengthen --warmup")


def check_shares(train: int, val: int, processes: int) -> None:
    """Refuse more processes than there are images.

    Args:
        train, val: numbers of training and validation images.
        processes: that share them.

    Raises:
        UserError: a process would have no image.
    """
    for images, what, remedy in (
        (train, "training", "train on more images"),
        (val, "validation", "raise --val-fraction, or set it to 0"),
    ):
        if 0 < images < processes:
            raise UserError(
                f"{processes} processes cannot share {images} {what} image{'s' if images > 1 else ''}: lower "
                f"--trainer.devices or --trainer.num_nodes, or {remedy}"
            )


@contextmanager
def single_values_refused() -> Iterator[None]:
    """Report in one line that BatchNorm has nothing to normalise: one image whose map is one pixel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError("BatchNorm needs more than one value per channel: give a larger --batch-size") from None
