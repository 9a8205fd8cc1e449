"""Adversarial examples replayed in runtimes: each must classify them as PyTorch does."""

from collections.abc import Iterable

from zoo.attacks import format_eps
from zoo.errors import UserError
from zoo.export.accuracy import Accuracy

POINTS = 0.2
"""Points of accuracy by which a runtime may differ from PyTorch in fp32; one image more or less is always allowed."""


def check_replay(runtime: str, file: str, accuracies: Iterable[Accuracy]) -> None:
    """Refuse a runtime that classifies the same adversarial examples otherwise than PyTorch.

    Args:
        runtime: its name.
        file: in fp32.
        accuracies: on examples made with the PyTorch model; others are passed over.

    Raises:
        UserError: names the accuracy that differs most.
    """
    apart = [x for x in accuracies if x.pytorch_accuracy is not None and _points(x) > max(POINTS, 100 / x.n) + 1e-9]
    if apart:
        worst = max(apart, key=_points)
        raise UserError(
            f"{runtime} classifies {worst.accuracy:.2%} of the adversarial examples of {file} correctly, PyTorch "
            f"{worst.pytorch_accuracy:.2%} of the same ({worst.attack} {worst.norm} {format_eps(worst.eps)}, "
            f"{worst.n} images): more than {POINTS} points apart, so it must not be used there"
        )


def _points(accuracy: Accuracy) -> float:
    there = accuracy.accuracy if accuracy.pytorch_accuracy is None else accuracy.pytorch_accuracy
    return 100 * abs(accuracy.accuracy - there)
