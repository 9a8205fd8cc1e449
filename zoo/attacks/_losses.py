"""Losses that attacks maximise: functions of logits (B, K), one number per image, large if it is misclassified.

Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, arXiv 2003.01690.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12
"""Keeps the ratios finite where logits are equal."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each image: (B, K) and (B,) to (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit minus the label's: above 0 if misclassified. (B, K) and (B,) to (B,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio, equation 6 of the paper: the margin over z_(1) - z_(3).

    z_(i) is the i-th largest logit. Scaling and shifting the logits does not change it. At least 3 classes.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return (z_target - z_label) / (z_(1) - (z_(3) + z_(4))/2), equation 7 of the paper. At least 4 classes."""
    top = logits.topk(4, dim=1).values
    return towards(logits, labels, targets) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def towards(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the target's logit minus the label's: above 0 if the target is preferred."""
    return logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]


def likeliest_others(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return the k classes with the largest logits besides the label, likeliest first: (B, K) to (B, k)."""
    return logits.scatter(1, labels[:, None], -torch.inf).topk(k, dim=1).indices
