"""The accuracy lost by lower precision, on clean and on adversarial images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.attacks import format_eps
from zoo.backbone.folded import folded
from zoo.data import load_test, open_known, stratified
from zoo.errors import UserError
from zoo.evaluation.sweeps import Sweep, choose_sweeps
from zoo.export.accuracy import Accuracy, adversarial_accuracies, clean_accuracy
from zoo.export.settings import ExportSettings
from zoo.latency.session import OnnxModel
from zoo.runs.file_metadata import Metadata


@dataclass(frozen=True)
class AccuracyChange:
    """One accuracy of the fp32 file, and of the file in lower precision on the same images."""

    before: Accuracy
    after: Accuracy

    @property
    def name(self) -> str:
        """Name of the measurement, such as ``pgd Linf 0.004``."""
        a = self.after
        return a.attack if a.norm is None else f"{a.attack} {a.norm} {format_eps(a.eps)}"

    @property
    def drop(self) -> float:
        """Points lost; negative for a gain."""
        return 100 * (self.before.accuracy - self.after.accuracy)


def calibration_images(metadata: Metadata, settings: ExportSettings) -> NDArray[np.float32]:
    """Return training images of a model's data set, the same share of every class: (n, C, H, W) in [0, 1]."""
    data = open_known(
        metadata.data,
        data_dir=settings.data_dir,
        download=settings.download,
        image_shape=metadata.image_shape,
        class_names=metadata.class_names,
    )
    source = data.source(train=True)
    images = source.fetch(stratified(source.labels, settings.calibration, settings.seed))
    return (images.float() / 255).numpy()


def accuracy_changes(
    before: OnnxModel, after: OnnxModel, model: nn.Module, settings: ExportSettings
) -> list[AccuracyChange]:
    """Measure both files on the same test images, and on the same examples, which PGD makes with the PyTorch model.

    Args:
        before: the file in fp32.
        after: the file in lower precision.
        model: the deployed model in eval mode.
        settings: choice of images.
    """
    metadata = before.metadata
    images, labels = load_test(
        metadata.data,
        data_dir=settings.data_dir,
        download=settings.download,
        image_shape=metadata.image_shape,
        class_names=metadata.class_names,
        n=settings.n,
        seed=settings.seed,
    )
    sweeps = choose_sweeps(["pgd"], ["Linf"], seed=settings.seed)
    return _changes((before, after), folded(model, metadata.image_shape), sweeps, images, labels)


def _changes(
    files: tuple[OnnxModel, OnnxModel], source: nn.Module, sweeps: Sequence[Sweep], images: Tensor, labels: Tensor
) -> list[AccuracyChange]:
    found = [AccuracyChange(*(clean_accuracy(file, images, labels) for file in files))]
    with torch.random.fork_rng():
        for sweep in sweeps:
            pairs = zip(*adversarial_accuracies(files, source, sweep, images, labels), strict=True)
            found += [AccuracyChange(before, after) for before, after in pairs]
    return found


def check_drop(changes: Sequence[AccuracyChange], limit: float, precision: str) -> None:
    """Refuse a loss of accuracy above a limit, in points.

    Raises:
        UserError: one of the accuracies falls by more.
    """
    worst = max(changes, key=lambda change: change.drop)
    if worst.drop > limit:
        instead = "calibrate on more images (--calibration), " if precision == "int8" else ""
        raise UserError(
            f"{precision} costs {worst.drop:.2f} points of accuracy ({worst.name}: {worst.before.accuracy:.2%} to "
            f"{worst.after.accuracy:.2%} on {worst.after.n} images), --max-drop is {limit:g}: nothing was written; "
            f"{instead}allow more, or stay with fp32"
        )
