"""Time exported files beside their dense backbones, and measure their clean and adversarial accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import nn

from zoo.backbone import create_backbone, with_normalization
from zoo.data import load_test
from zoo.errors import UserError
from zoo.evaluation.folded import folded
from zoo.evaluation.sweeps import Sweep
from zoo.export.accuracy import Accuracy, adversarial_accuracy, check_labels, clean_accuracy
from zoo.export.latency import Latency, measure
from zoo.export.metadata import Metadata
from zoo.export.onnx_file import write_onnx
from zoo.export.results import Row
from zoo.export.session import Device, OnnxModel, default_threads, resolve_device


@dataclass(frozen=True)
class Settings:
    """What is measured and how."""

    device: Device = "auto"
    """cpu, cuda, or auto: CUDA when ONNX Runtime has it and there is a GPU, else the CPU."""
    threads: int = field(default_factory=default_threads)
    """Threads of one operator on the CPU."""
    batch_size: int = 32
    """Batch for the throughput; latency is that of batch 1."""
    rounds: int = 5
    """Turns in which the files are timed one after another."""
    seconds: float = 0.3
    """Length of a turn, for one file and one batch size."""
    n: int | Literal["all"] = 500
    """Test images for the accuracies, the same share of every class, or all; 0 for latency only."""
    seed: int = 0
    """Seed of the choice of test images."""
    data_dir: Path | None = None
    """Where the data sets are."""
    download: bool = False
    """Download a data set that is not there."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        if (self.n != "all" and self.n < 0) or not 0 <= self.seconds < 3600:
            raise UserError("n and seconds must not be negative, and a turn not longer than an hour")


@dataclass(frozen=True)
class Target:
    """One file to measure.

    Attributes:
        name: what to call it.
        path: the exported file.
        metadata: what the file says of itself.
        model: builds the PyTorch model it was exported from, in eval mode; None if that is not at hand.
        masking: signs of masked gradients that its card lists, see `zoo.evaluation.sanity`.
    """

    name: str
    path: Path
    metadata: Metadata
    model: Callable[[], nn.Module] | None
    masking: tuple[str, ...] = ()


def _dense_key(metadata: Metadata) -> tuple[object, ...]:
    return metadata.arch, metadata.image_shape, len(metadata.class_names)


def _export_dense(metadata: Metadata, folder: Path) -> Target:
    """Export the uncompressed backbone of a target with random weights: latency does not depend on them."""
    backbone = create_backbone(metadata.arch, len(metadata.class_names), metadata.image_shape)
    model = with_normalization(backbone, metadata.mean, metadata.std).eval()
    path = folder / f"dense-{len(list(folder.iterdir()))}.onnx"
    ours = replace(
        metadata,
        method="dense",
        params=metadata.dense_params,
        macs=metadata.dense_macs,
        ranks={},
        weights_sha256="",
        training="",
    )
    write_onnx(model, path, ours.image_shape, ours.to_props())
    return Target(f"{metadata.arch} (dense)", path, ours, None)


def _accuracies(target: Target, settings: Settings, sweeps: Sequence[Sweep]) -> tuple[tuple[Accuracy, ...], str]:
    """Measure a target's accuracies; the second value says why some are missing, or is empty."""
    if not settings.n:
        return (), ""
    metadata = target.metadata
    images, labels = load_test(
        metadata.data,
        data_dir=settings.data_dir,
        download=settings.download,
        image_shape=metadata.image_shape,
        n=None if settings.n == "all" else settings.n,
        seed=settings.seed,
    )
    onnx_model = OnnxModel(target.path, settings.device, settings.threads)
    check_labels(onnx_model, labels)
    clean = clean_accuracy(onnx_model, images, labels)
    if target.model is None:
        return (clean,), "no run beside the file: no model to make adversarial examples with"
    on_gpu = onnx_model.device == "cuda" and torch.cuda.is_available()
    source = folded(target.model(), metadata.image_shape).to("cuda" if on_gpu else "cpu")
    found = [adversarial_accuracy(onnx_model, source, sweep, images, labels) for sweep in sweeps]
    return (clean, *(accuracy for of_sweep in found for accuracy in of_sweep)), ""


def bench(targets: list[Target], settings: Settings, sweeps: Sequence[Sweep], say: Callable[[str], None]) -> list[Row]:
    """Measure the targets, each beside the dense backbone of its architecture, image size and classes.

    Args:
        targets: the files.
        settings: see `Settings`.
        sweeps: attacks that make adversarial examples, with their radii.
        say: told what is being done.

    Returns:
        One row per dense backbone and target, each target after its backbone.
    """
    device = resolve_device(settings.device)
    settings = replace(settings, device=device)
    measured = []
    for i, target in enumerate(targets, start=1):
        say(f"accuracy of {target.name} ({i} of {len(targets)})")
        measured.append(_accuracies(target, settings, sweeps))
    with TemporaryDirectory() as folder:
        dense: dict[tuple[object, ...], Target] = {}
        for target in targets:
            if _dense_key(target.metadata) not in dense:
                say(f"exporting the dense {target.metadata.arch}")
                dense[_dense_key(target.metadata)] = _export_dense(target.metadata, Path(folder))
        say("timing")
        files = [*dense.values(), *targets]
        batches = tuple(dict.fromkeys((1, settings.batch_size)))
        latencies = measure(
            [t.path for t in files],
            device=device,
            threads=settings.threads,
            batches=batches,
            rounds=settings.rounds,
            seconds=settings.seconds,
        )
        rows: list[Row] = []
        for key, reference in dense.items():
            base = latencies[files.index(reference)]
            rows.append(_row(reference, base, base, (), ""))
            for target, latency, found in zip(targets, latencies[len(dense) :], measured, strict=True):
                if _dense_key(target.metadata) == key:
                    rows.append(_row(target, latency, base, *found))
        return rows


def _row(
    target: Target,
    latency: dict[int, Latency],
    base: dict[int, Latency],
    accuracies: tuple[Accuracy, ...],
    note: str,
) -> Row:
    ratios = {batch: latency[batch].ratio_to(base[batch]) for batch in latency}
    size = target.path.stat().st_size
    return Row(target.name, target.path.name, size, target.metadata, latency, ratios, accuracies, note, target.masking)
