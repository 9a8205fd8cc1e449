"""Time exported files beside their dense backbones, and measure their clean and adversarial accuracy."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from zoo.backbone.folded import folded
from zoo.bench.baselines import Reference, export_dense, has_backbone, other_baselines
from zoo.bench.entries import Entry, dense_key, in_order, of_reference, of_target, rows
from zoo.bench.in_runtimes import InRuntime, LeftOut, choose_runtimes, open_in
from zoo.bench.replay import check_replay
from zoo.bench.results import Row
from zoo.bench.target import Target
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
from zoo.export.kept_examples import KeptExamples
from zoo.latency.measure import measure
from zoo.latency.session import Device, default_threads, resolve_device
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT, Runtime, Source

EXAMPLES = "adversarial"
"""Folder beside a file with adversarial examples of its weights."""


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark."""

    device: Device = "auto"
    """cpu, cuda, or auto: CUDA if ONNX Runtime has it and there is a GPU, otherwise the CPU."""
    threads: int = field(default_factory=default_threads)
    """Threads of one operator on the CPU."""
    runtime: str = DEFAULT
    """Runtimes to run the files in, such as onnxruntime,openvino: timed in turns, logits compared, each attacked."""
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
    keep_examples: bool = False
    """Keep the adversarial examples beside the file, in adversarial/, and replay those that are there."""
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
    def runtimes(self) -> tuple[str, ...]:
        """The names of the runtimes."""
        return tuple(dict.fromkeys(word.strip() for word in self.runtime.split(",") if word.strip())) or (DEFAULT,)

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


def _accuracies(
    target: Target, opened: list[InRuntime], settings: Settings, sweeps: Sequence[Sweep], direct: Sequence[Sweep]
) -> tuple[list[tuple[Accuracy, ...]], str]:
    """Measure a target's accuracies in each runtime, on the same images and adversarial examples.

    The second value is the reason why some are missing, or empty.
    """
    if not settings.n:
        return [() for _ in opened], ""
    metadata = target.metadata
    if not metadata.data:
        return [() for _ in opened], "it names no data set: no images to measure its accuracy on"
    images, labels = load_test(
        metadata.data,
        data_dir=settings.data_dir or target.data_dir,
        download=settings.download,
        image_shape=metadata.image_shape,
        class_names=metadata.class_names,
        n=None if settings.n == "all" else settings.n,
        seed=settings.seed,
    )
    check_labels(target.path, metadata, labels)
    sessions = [x.session for x in opened]
    clean = [clean_accuracy(session, images, labels) for session in sessions]
    itself = [[a for sweep in direct for a in black_box_accuracies(x, sweep, images, labels)] for x in sessions]
    if target.model is None:
        return (
            [(first, *last) for first, last in zip(clean, itself, strict=True)],
            "no run of its weights beside the file: no model to make adversarial examples with",
        )
    on_gpu = settings.device == "cuda" and torch.cuda.is_available()
    source = folded(target.model(), metadata.image_shape).to("cuda" if on_gpu else "cpu")
    attacked: list[list[Accuracy]] = [[] for _ in sessions]
    folder = target.path.parent / EXAMPLES
    kept = KeptExamples(folder, metadata.weights_sha256) if settings.keep_examples else None
    for sweep in sweeps:
        found = adversarial_accuracies(sessions, source, sweep, images, labels, kept)
        for mine, accuracies in zip(attacked, found, strict=True):
            mine += accuracies
    return [(first, *mine, *last) for first, mine, last in zip(clean, attacked, itself, strict=True)], ""


def check(settings: Settings, data: Collection[str]) -> dict[str, Runtime]:
    """Check that a benchmark can be made, and return its runtimes by name.

    Args:
        settings: see `Settings`.
        data: names of the data sets that the targets are of; an empty one is none.

    Raises:
        UserError: a runtime or the device is not there, or a folder is given for data sets without files.
    """
    names = sorted(name for name in data if name)
    built_in = bool(names) and all(data_class(name).built_in for name in names)
    if settings.data_dir is not None and built_in:  # others may need the folder
        check_data_dir(names[0], settings.data_dir)
    found = choose_runtimes(settings.runtimes, settings.device)
    resolve_device(settings.device)
    return found


def bench(
    targets: list[Target],
    settings: Settings,
    sweeps: Sequence[Sweep],
    say: Callable[[str], None],
    direct: Sequence[Sweep] = (),
    left_out: list[LeftOut] | None = None,
) -> list[Row]:
    """Measure the targets, each beside the dense backbone of its architecture, image size and classes.

    A file whose architecture is not timm's has no dense backbone and no ratios to it.

    Args:
        targets: the files.
        settings: see `Settings`.
        sweeps: attacks that make adversarial examples, with their radii.
        say: called with a line on each stage.
        direct: attacks without gradients, such as Square, on the files themselves.
        left_out: where files go that a runtime cannot run or answers otherwise for; None: that is an error.

    Returns:
        One row per dense backbone, further baseline and target, each target after its backbone.
    """
    runtimes = check(settings, {target.metadata.data for target in targets})
    device = resolve_device(settings.device if list(runtimes) == [DEFAULT] else "cpu")
    settings = replace(settings, device=device)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def opened(source: Source, metadata: Metadata) -> list[InRuntime]:
            return open_in(runtimes, source, metadata, device, settings.threads, folder, say, left_out)

        measured: list[Entry] = []
        for i, target in enumerate(targets, start=1):
            say(f"accuracy of {target.name} ({i} of {len(targets)})")
            places = opened(target.source(), target.metadata)
            found, note = _accuracies(target, places, settings, sweeps, direct)
            agreeing = _agreeing(target, places, found, left_out)
            measured += of_target(target, [places[i] for i in agreeing], [found[i] for i in agreeing], note)
        entries: list[Entry] = []
        for key, baselines in _references(targets, settings, folder, say).items():
            for i, reference in enumerate(baselines):  # the first is the dense backbone
                source = reference.source() if i == 0 else None
                places = opened(source, reference.metadata) if source else []
                if places or DEFAULT in runtimes:
                    entries += of_reference(reference, key, places)
        entries = in_order([*entries, *measured], list(runtimes))
        say("timing")
        timings = measure(
            [entry.program for entry in entries],
            device=device,
            threads=settings.threads,
            batches=settings.batches,
            rounds=settings.rounds,
            seconds=settings.seconds,
        )
        return rows(entries, timings)


def _agreeing(
    target: Target,
    places: Sequence[InRuntime],
    accuracies: Sequence[Sequence[Accuracy]],
    left_out: list[LeftOut] | None,
) -> list[int]:
    """Return which runtimes classify the adversarial examples as PyTorch does; the others are an error, or left out."""
    found = []
    for i, place in enumerate(places):
        try:
            if target.metadata.precision == "fp32":
                check_replay(place.runtime, str(target.path), accuracies[i])
            found.append(i)
        except UserError as error:
            if left_out is None:
                raise
            left_out.append(LeftOut(target.name, place.runtime, str(error)))
    return found


def _references(
    targets: list[Target], settings: Settings, folder: Path, say: Callable[[str], None]
) -> dict[tuple[object, ...], list[Reference]]:
    """Export the dense backbone of each architecture, image size and number of classes, and other baselines of it.

    The list is empty if there is no such backbone.
    """
    found: dict[tuple[object, ...], list[Reference]] = {}
    for target in targets:
        key = dense_key(target.metadata)
        if key not in found and not has_backbone(target.metadata):
            found[key] = []
        elif key not in found:
            say(f"exporting the dense {target.metadata.arch}")
            dense = export_dense(target.metadata, folder)
            found[key] = [dense, *(other_baselines(dense, folder, settings.threads) if settings.baselines else [])]
    return found
