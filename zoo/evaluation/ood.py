"""Whether a network's confidence tells its own data from other images.

Maximum softmax probability: Hendrycks, Gimpel: A baseline for detecting misclassified and out-of-distribution examples
in neural networks, ICLR 2017, arXiv 1610.02136. Energy: Liu, Wang, Owens, Li: Energy-based out-of-distribution
detection, NeurIPS 2020, arXiv 2010.03759.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attacks import AttackedModel, fp32
from zoo.runs.detection import Detection

ACCEPTED = 0.95
"""Share of the network's own images that a detector must accept, for FPR95."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def detection(model: nn.Module, images: Tensor, others: Tensor, data: str, batch_size: int = 250) -> list[Detection]:
    """Measure how well two scores tell test images from others: the maximum softmax probability and the energy.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        images: test images of the network's data, uint8 (N, C, H, W), N >= 1.
        others: of another data set, uint8 (M, C', H', W'), M >= 1; they are fitted to the first ones' shape.
        data: name of the others' data set.
        batch_size: images that the model gets at once, at most.
    """
    device = next(model.parameters(), torch.empty(0)).device
    logits = []
    with fp32(device), torch.no_grad():
        attacked = AttackedModel(model, batch_size)
        for part in (images, fitted(others, (images.shape[1], images.shape[2], images.shape[3]))):
            found = [attacked.logits(x.to(device).float().div(255)).cpu() for x in part.split(batch_size)]
            logits.append(torch.cat(found).double())
    own, other = logits
    return [
        detection_by("msp", own.softmax(1).amax(1), other.softmax(1).amax(1), data),
        detection_by("energy", own.logsumexp(1), other.logsumexp(1), data),
    ]


def detection_by(score: Literal["msp", "energy"], own: Tensor, other: Tensor, data: str) -> Detection:
    """Return how well a score, large for the network's own images (N,), tells them from others (M,)."""
    from torchmetrics.functional.classification import (  # slow to import
        binary_auroc,
        binary_specificity_at_sensitivity,
    )

    # Their ranks, because torchmetrics squashes scores beyond [0, 1], and energies would then all be 1.
    ranks = torch.cat([own, other]).unique(return_inverse=True)[1].double()
    ranks /= ranks.max().clamp_min(1.0)
    is_own = torch.cat([torch.ones(len(own)), torch.zeros(len(other))]).long()
    specificity, _ = binary_specificity_at_sensitivity(ranks, is_own, min_sensitivity=ACCEPTED)
    auroc = float(binary_auroc(ranks, is_own))
    return Detection(data=data, score=score, auroc=auroc, fpr95=1 - float(specificity), n=len(own), n_other=len(other))


def fitted(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return images (M, C', H', W'), uint8, in the shape that a network takes: grey, repeated or resized."""
    channels, height, width = shape
    found = images
    if channels == 1 and images.shape[1] == 3:
        found = (images * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).round().byte()
    elif images.shape[1] == 1:
        found = images.expand(-1, channels, -1, -1)
    if found.shape[2:] == (height, width):
        return found
    resized = F.interpolate(found.float(), (height, width), mode="bilinear", antialias=True)
    return resized.clamp(0, 255).round().byte()
