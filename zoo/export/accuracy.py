"""Accuracy of an exported file, on test images and on adversarial examples made with PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.attacks import ATTACKS
from zoo.errors import UserError
from zoo.evaluation.sweeps import Sweep
from zoo.export.kept_examples import Examples, KeptExamples
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import Session

BATCH = 250
"""Images per forward pass and per attack."""


@dataclass(frozen=True)
class Accuracy:
    """One measured accuracy of an exported file.

    Attributes:
        attack: ``clean`` or the attack's name.
        norm: of the perturbation; None for clean.
        eps: its radius in pixel units of [0, 1].
        accuracy: share of images that the ONNX graph classifies correctly.
        pytorch_accuracy: the same for the PyTorch model that made the examples; None if there is none.
        n: test images.
        options: the attack's other settings.
    """

    attack: str
    norm: str | None
    eps: float
    accuracy: float
    pytorch_accuracy: float | None
    n: int
    options: dict[str, Any]


def _batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        yield x.float() / 255, y


def _right(model: Session, images: Tensor, labels: Tensor) -> int:
    logits = model.logits(np.ascontiguousarray(images.cpu().numpy()))
    return int((logits.argmax(1) == labels.cpu().numpy()).sum())


def check_labels(path: Path, metadata: Metadata, labels: Tensor) -> None:
    """Refuse test labels without a class in the file.

    Raises:
        UserError: a label is out of range: the data are of another data set than the file's.
    """
    classes = len(metadata.class_names)
    if int(labels.max()) >= classes:
        raise UserError(f"{path} has {classes} classes, {metadata.data} has more")


def clean_accuracy(model: Session, images: Tensor, labels: Tensor) -> Accuracy:
    """Measure accuracy on clean images.

    Args:
        model: the exported file, open in a runtime.
        images: uint8, (n, C, H, W).
        labels: (n,).
    """
    right = sum(_right(model, x, y) for x, y in _batches(images, labels))
    return Accuracy("clean", None, 0.0, right / len(labels), None, len(labels), {})


def adversarial_accuracies(
    models: Sequence[Session],
    source: nn.Module,
    sweep: Sweep,
    images: Tensor,
    labels: Tensor,
    kept: KeptExamples | None = None,
) -> list[list[Accuracy]]:
    """Measure accuracy on examples made with the PyTorch model that the files were exported from.

    Args:
        models: exported files, each open in a runtime, all given the same examples.
        source: their PyTorch model in eval mode; the attack runs on its device.
        sweep: the attack and its radii.
        images: uint8, (n, C, H, W).
        labels: (n,).
        kept: examples of earlier measurements, which are replayed, and to which new ones are added.

    Returns:
        For each file, one accuracy per radius.
    """
    device = next(source.parameters()).device
    right, robust = [[0] * len(sweep.eps) for _ in models], torch.zeros(len(sweep.eps))
    for x, y in _batches(images.to(device), labels.to(device)):
        found = kept.get(sweep, x, y) if kept else None
        if found is None:
            outcome = sweep.attack(source, x, y, sweep.eps)
            found = Examples(torch.stack(list(outcome.adversarial)), outcome.robust)
            if kept:
                kept.put(sweep, x, y, found)
        robust += found.robust.sum(1).cpu()
        for model, counts in zip(models, right, strict=True):
            for i, adversarial in enumerate(found.adversarial):
                counts[i] += _right(model, adversarial, y)
    n = len(labels)
    here = [count / n for count in robust.tolist()]
    return [
        [_accuracy(sweep, eps, count / n, there, n) for eps, count, there in zip(sweep.eps, counts, here, strict=True)]
        for counts in right
    ]


class _Logits(nn.Module):
    """The graph as a model with logits and without gradients, for black-box attacks."""

    def __init__(self, model: Session) -> None:
        super().__init__()
        self._model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self._model.logits(np.ascontiguousarray(images.detach().cpu().numpy()))
        return torch.from_numpy(logits).to(images.device)


def black_box_accuracies(model: Session, sweep: Sweep, images: Tensor, labels: Tensor) -> list[Accuracy]:
    """Measure accuracy under an attack on the graph itself, which needs no PyTorch model.

    Args:
        model: the exported file.
        sweep: an attack that uses only logits, such as Square, and its radii.
        images: uint8, (n, C, H, W).
        labels: (n,).

    Returns:
        One accuracy per radius.
    """
    attacked, robust, n = _Logits(model).eval(), torch.zeros(len(sweep.eps)), len(labels)
    for x, y in _batches(images, labels):
        robust += sweep.attack(attacked, x, y, sweep.eps).robust.sum(1)
    shares = [count / n for count in robust.tolist()]
    return [_accuracy(sweep, eps, share, None, n) for eps, share in zip(sweep.eps, shares, strict=True)]


def _accuracy(sweep: Sweep, eps: float, there: float, here: float | None, n: int) -> Accuracy:
    options = {key: value for key, value in asdict(sweep.attack).items() if key != "norm"}
    return Accuracy(ATTACKS.name_of(sweep.attack), sweep.attack.norm, eps, there, here, n, options)
