"""Whether a network is as often right as it is confident.

Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks, ICML 2017, arXiv 1706.04599; accuracy at
coverage as in Geifman, El-Yaniv: Selective classification for deep neural networks, NeurIPS 2017, arXiv 1705.08500.
"""

import torch
from torch import Tensor, nn

from zoo.attacks import AttackedModel, fp32
from zoo.runs.calibration import Calibration, ReliabilityBin

BINS = 15
"""Bins of equal width over the confidence, as in the paper."""
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Shares of the images, the most confident first, on which the accuracy is measured."""


def calibration(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 250) -> Calibration:
    """Measure the expected calibration error, the reliability diagram and the accuracy at coverage on clean images.

    Args:
        model: in eval mode; takes images in [0, 1], returns logits.
        images: uint8 (N, C, H, W), N >= 1.
        labels: class indices (N,).
        batch_size: images that the model gets at once, at most.
    """
    device = next(model.parameters(), torch.empty(0)).device
    with fp32(device):
        attacked = AttackedModel(model, batch_size)
        logits = torch.cat([attacked.logits(x.to(device).float().div(255)).cpu() for x in images.split(batch_size)])
    return calibration_of(logits.double().softmax(1), labels.cpu())


def calibration_of(probabilities: Tensor, labels: Tensor) -> Calibration:
    """Return the calibration of predicted probabilities (N, K), given the labels (N,)."""
    confidence, answer = probabilities.max(1)
    right = (answer == labels).double()
    from torchmetrics.functional.classification import multiclass_calibration_error  # slow to import

    error = multiclass_calibration_error(
        probabilities, labels, num_classes=probabilities.shape[1], n_bins=BINS, norm="l1"
    )
    return Calibration(
        ece=float(error), bins=_bins(confidence, right), coverage=_coverage(confidence, right), n=len(labels)
    )


def _bins(confidence: Tensor, right: Tensor) -> tuple[ReliabilityBin, ...]:
    """Return mean confidence and accuracy of every bin that has an image."""
    place = (confidence * BINS).long().clamp_max(BINS - 1)
    found = []
    for own in (place == i for i in range(BINS)):
        if bool(own.any()):
            found.append(
                ReliabilityBin(
                    confidence=confidence[own].mean().item(), accuracy=right[own].mean().item(), n=int(own.sum())
                )
            )
    return tuple(found)


def _coverage(confidence: Tensor, right: Tensor) -> tuple[tuple[float, float], ...]:
    """Return (coverage, accuracy on the most confident images of that share)."""
    ordered = right[confidence.argsort(descending=True, stable=True)]
    counts = {share: max(1, round(share * len(ordered))) for share in COVERAGES}
    return tuple((share, ordered[:count].mean().item()) for share, count in counts.items())
