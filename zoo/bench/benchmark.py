"""Time exported files beside their dense backbones, and measure their clean and adversarial accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import nn

from zoo.backbone.folded import folded
from zoo.bench.baselines import Reference, export_dense, has_backbone, other_baselines
from zoo.bench.results import Row
from zoo.data import check_data_dir, data_class, load_test
from zoo.errors import UserError
from zoo.evaluation.sweeps import Sweep
from zoo.export.accuracy import (
    Accuracy,
    adversarial_accuracies,
    black_box_accuracies,
    check_labels,
    clean_accuracy,
)
from zoo.latency.measure import Timing, measure
from zoo.latency.session import Device, OnnxModel, default_threads, resolve_device
from zoo.runs.file_metadata import Metadata


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark."""

    device: Device = "auto"
    """cpu, cuda, or auto: CUDA if ONNX Runtime has it and there is a GPU, otherwise the CPU."""
    threads: int = field(default_factory=default_threads)
    """Threads of one operator on the CPU."""
    batch_size: str = "32"
    """Batches for the throughput, such as 8,32,128; latency is that of batch 1."""
    rounds: int = 30
    """Turns in which the files are timed one after another."""
    seconds: float = 0.05
    """Length of a turn, for one file and one batch size."""
    baselines: bool = False
    """Also the dense backbone by PyTorch's exporter alone, in int8, and under torch.compile."""
    square: bool = False
    """Also Square, a black-box attack, on the file itself."""
    queries: int = 100
    """Forward passes of Square for each image."""
    n: int | Literal["all"] = 500
    """Test images for the accuracies, the same share of every class, or all; 0 for latency only."""
    seed: int = 0
    """Seed of the choice of test images."""
    data_dir: Path | None = None
    """Where the data sets are; default: where each target's training found its own."""
    download: bool = False
    """Download a data set that is not there."""

    def __post_init__(self) -> None:
        for name in ("threads", "rounds", "queries"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.throughput or min(self.throughput) < 1:
            raise UserError(f"batch-size must be at least 1, not {self.batch_size}")
        if (self.n != "all" and self.n < 0) or not 0 <= self.seconds < 3600:
            raise UserError("n and seconds must not be negative, and a turn not longer than an hour")

    @property
    def throughput(self) -> tuple[int, ...]:
        """The batches for the throughput."""
        try:
            return tuple(dict.fromkeys(int(word) for word in str(self.batch_size).split(",")))
        except ValueError:
            raise UserError(f"batch-size {self.batch_size}: give whole numbers, such as 32 or 8,32,128") from None

    @property
    def batches(self) -> tuple[int, ...]:
        """All batches that are timed."""
        return tuple(sorted({1, *self.throughput}))


@dataclass(frozen=True)
class Target:
    """One file to measure.

    Attributes:
        name: what to call it.
        path: the exported file.
        metadata: what the file says of itself.
        model: builds the PyTorch model it was exported from, in eval mode; None if that is not available.
        masking: signs of masked gradients that its card lists, see `zoo.evaluation.sanity`.
        data_dir: where its training found the data, if known.
    """

    name: str
    path: Path
    metadata: Metadata
    model: Callable[[], nn.Module] | None
    masking: tuple[str, ...] = ()
    data_dir: Path | None = None


def _dense_key(metadata: Metadata) -> tuple[object, ...]:
    return metadata.arch, metadata.image_shape, len(metadata.class_names)


def _accuracies(
    target: Target, settings: Settings, sweeps: Sequence[Sweep], direct: Sequence[Sweep]
) -> tuple[tuple[Accuracy, ...], str]:
    """Measure a target's accuracies; the second value is the reason why some are missing, or empty."""
    if not settings.n:
        return (), ""
    metadata = target.metadata
    if not metadata.data:
        return (), "it names no data set: no images to measure its accuracy on"
    images, labels = load_test(
        metadata.data,
        data_dir=settings.data_dir or target.data_dir,
        download=settings.download,
        image_shape=metadata.image_shape,
        class_names=metadata.class_names,
        n=None if settings.n == "all" else settings.n,
        seed=settings.seed,
    )
    onnx_model = OnnxModel(target.path, settings.device, settings.threads)
    check_labels(onnx_model, labels)
    clean = clean_accuracy(onnx_model, images, labels)
    itself = [accuracy for sweep in direct for accuracy in black_box_accuracies(onnx_model, sweep, images, labels)]
    if target.model is None:
        return (clean, *itself), "no run of its weights beside the file: no model to make adversarial examples with"
    on_gpu = onnx_model.device == "cuda" and torch.cuda.is_available()
    source = folded(target.model(), metadata.image_shape).to("cuda" if on_gpu else "cpu")
    found = [adversarial_accuracies([onnx_model], source, sweep, images, labels)[0] for sweep in sweeps]
    return (clean, *(accuracy for of_sweep in found for accuracy in of_sweep), *itself), ""


def bench(
    targets: list[Target],
    settings: Settings,
    sweeps: Sequence[Sweep],
    say: Callable[[str], None],
    direct: Sequence[Sweep] = (),
) -> list[Row]:
    """Measure the targets, each beside the dense backbone of its architecture, image size and classes.

    A file whose architecture is not timm's has no dense backbone and no ratios to it.

    Args:
        targets: the files.
        settings: see `Settings`.
        sweeps: attacks that make adversarial examples, with their radii.
        say: called with a line on each stage.
        direct: attacks without gradients, such as Square, on the files themselves.

    Returns:
        One row per dense backbone, further baseline and target, each target after its backbone.
    """
    names = sorted({target.metadata.data for target in targets if target.metadata.data})
    built_in = bool(names) and all(data_class(name).built_in for name in names)
    if settings.data_dir is not None and built_in:  # others may need the folder
        check_data_dir(names[0], settings.data_dir)
    device = resolve_device(settings.device)
    settings = replace(settings, device=device)
    measured = []
    for i, target in enumerate(targets, start=1):
        say(f"accuracy of {target.name} ({i} of {len(targets)})")
        measured.append(_accuracies(target, settings, sweeps, direct))
    with TemporaryDirectory() as folder:
        references = _references(targets, settings, Path(folder), say)
        say("timing")
        groups = [(found, [t for t in targets if _dense_key(t.metadata) == key]) for key, found in references.items()]
        programs = [x for found, group in groups for x in (*(r.program for r in found), *(t.path for t in group))]
        timings = iter(
            measure(
                programs,
                device=device,
                threads=settings.threads,
                batches=settings.batches,
                rounds=settings.rounds,
                seconds=settings.seconds,
            )
        )
        rows: list[Row] = []
        accuracies = dict(zip(map(id, targets), measured, strict=True))
        for found, group in groups:
            of_group = list(islice(timings, len(found) + len(group)))
            base = of_group[0] if found else None
            rows += [_reference_row(*x, base) for x in zip(found, of_group, strict=False)]
            rows += [
                _row(target, timing, base, *accuracies[id(target)])
                for target, timing in zip(group, of_group[len(found) :], strict=True)
            ]
        return rows


def _references(
    targets: list[Target], settings: Settings, folder: Path, say: Callable[[str], None]
) -> dict[tuple[object, ...], list[Reference]]:
    """Export the dense backbone of each architecture, image size and number of classes, and other baselines of it.

    The list is empty if there is no such backbone.
    """
    found: dict[tuple[object, ...], list[Reference]] = {}
    for target in targets:
        key = _dense_key(target.metadata)
        if key not in found and not has_backbone(target.metadata):
            found[key] = []
        elif key not in found:
            say(f"exporting the dense {target.metadata.arch}")
            dense = export_dense(target.metadata, folder)
            found[key] = [dense, *(other_baselines(dense, folder) if settings.baselines else [])]
    return found


def _ratios(timing: Timing, base: Timing | None) -> dict[int, float]:
    if base is None:
        return {}
    return {batch: latency.ratio_to(base.latency[batch]) for batch, latency in timing.latency.items()}


def _reference_row(reference: Reference, timing: Timing, base: Timing | None) -> Row:
    path = reference.path
    size, file = (path.stat().st_size, path.name) if path else (0, "")
    return Row(reference.name, file, size, reference.metadata, timing, _ratios(timing, base))


def _row(target: Target, timing: Timing, base: Timing | None, accuracies: tuple[Accuracy, ...], note: str) -> Row:
    size, ratios = target.path.stat().st_size, _ratios(timing, base)
    return Row(target.name, target.path.name, size, target.metadata, timing, ratios, accuracies, note, target.masking)
