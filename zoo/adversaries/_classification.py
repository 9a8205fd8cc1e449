"""The classification loss of logits, by the labels or by a teacher's soft targets.

Soft targets: Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, arXiv 1503.02531, at temperature 1;
of a robust teacher on clean images: Zi, Zhao, Ma, Jiang: Revisiting adversarial robustness distillation: robust soft
labels make student better, ICCV 2021, arXiv 2108.07969.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adversaries._base import Threat


def classification_loss(
    logits: Tensor, labels: Tensor, threat: Threat, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Return the cross-entropy with the smoothed labels, or KL(T || softmax(logits)) with T the threat's soft targets.

    The divergence is the cross-entropy with T less its entropy: the same gradient, and 0 where the answers agree.

    Args:
        logits: (B, K).
        labels: (B,).
        threat: which has label smoothing, or soft targets (B, K).
        reduction: over the images.
    """
    if threat.soft_targets is None:
        return F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=threat.label_smoothing)
    answers = F.log_softmax(logits.float(), 1)
    return F.kl_div(answers, threat.soft_targets, reduction="batchmean" if reduction == "mean" else "sum")


def classification(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat) -> dict[str, Tensor]:
    """Return `classification_loss` at the images, as ``loss``, and the logits."""
    logits = model(images)
    return {"loss": classification_loss(logits, labels, threat), "logits": logits.detach()}
