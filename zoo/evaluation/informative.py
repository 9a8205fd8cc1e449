"""Whether a network has learned anything: one that answers no better than a guess has no robustness to speak of."""

import math
from collections.abc import Sequence

from torch import Tensor

from zoo.runs.records import Evaluation

SURE = 1.645
"""Standard errors above guessing from which an accuracy is better than that (one-sided, 95 %)."""
NEARLY_ALL = 0.9
"""Share of the answers from which they count as one class."""


def uninformative_signs(
    answers: Tensor, probed: Tensor, labels: Tensor, evaluations: Sequence[Evaluation]
) -> tuple[str, ...]:
    """List the signs that a network learned nothing.

    Args:
        answers: classes that it gives for a few images, (M,).
        probed: their labels, (M,).
        labels: of all images that it was evaluated on, (N,).
        evaluations: of the network.

    Returns:
        ``accuracy_of_guessing``: clean accuracy is not above the share of the commonest class by more than chance
        explains. ``one_class``: nearly all answers are one class, and the images are not.
    """
    return tuple(
        name
        for name, found in {
            "accuracy_of_guessing": any(_is_guessing(e, labels) for e in evaluations if e.attack == "clean"),
            "one_class": _commonest(answers) > NEARLY_ALL >= _commonest(probed),
        }.items()
        if found
    )


def _is_guessing(e: Evaluation, labels: Tensor) -> bool:
    guessing = _commonest(labels)
    return e.accuracy <= guessing + SURE * math.sqrt(guessing * (1 - guessing) / e.n)


def _commonest(classes: Tensor) -> float:
    """Return the share of the commonest class."""
    return classes.bincount().max().item() / len(classes)
