"""Losses that attacks maximise: functions of logits, one number per image, large if it is misclassified.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, arXiv 2003.01690.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TINY = 1e-12
"""Keeps the ratios finite where logits are equal."""


def cross_entropy(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the cross-entropy of each image."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the largest other logit minus the label's: above 0 if misclassified."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own


def dlr(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the difference of logits ratio, equation 6 of the paper: the margin over z_(1) - z_(3).

    z_(i) is the i-th largest logit. Scaling and shifting the logits does not change it. At least 3 classes.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return (z_target - z_label) / (z_(1) - (z_(3) + z_(4))/2), equation 7 of the paper. At least 4 classes."""
    top = logits.topk(4, dim=1).values
    return towards(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def towards(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the target's logit minus the label's: above 0 if the target is preferred."""
    return logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]


def likeliest_others(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], k: int
) -> Int[Tensor, "batch k"]:
    """Return the k classes with the largest logits besides the label, likeliest first."""
    return logits.scatter(1, labels[:, None], -torch.inf).topk(k, dim=1).indices
