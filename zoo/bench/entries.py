"""What a benchmark times: each file in each runtime, and the row of measurements that comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from zoo.bench.baselines import Reference
from zoo.bench.in_runtimes import InRuntime
from zoo.bench.results import Row
from zoo.bench.target import Target
from zoo.export.accuracy import Accuracy
from zoo.latency.measure import Program, Timing
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT

Key = tuple[object, ...]


@dataclass(frozen=True)
class Entry:
    """One thing that is timed.

    Attributes:
        key: of the dense backbone that it is compared with.
        runtime: that it runs in.
        program: what is timed.
        row: makes its row from its times.
    """

    key: Key
    runtime: str
    program: Path | Program
    row: Callable[[Timing], Row]


def dense_key(metadata: Metadata) -> Key:
    """Return what files with the same dense backbone have in common."""
    return metadata.arch, metadata.image_shape, len(metadata.class_names)


def of_reference(reference: Reference, key: Key, opened: Sequence[InRuntime]) -> list[Entry]:
    """Return a baseline in each runtime, or in ONNX Runtime alone where it is not open in any."""
    if not opened:
        return [Entry(key, DEFAULT, reference.program, partial(_reference_row, reference, 0))]
    return [Entry(key, x.runtime, x.program, partial(_reference_row, reference, x.bytes)) for x in opened]


def of_target(
    target: Target, opened: Sequence[InRuntime], accuracies: Sequence[tuple[Accuracy, ...]], note: str
) -> list[Entry]:
    """Return a target in each runtime, with its accuracies there, and the reason why some are missing."""
    return [
        Entry(
            dense_key(target.metadata),
            place.runtime,
            place.program,
            partial(_row, target, found, note, place),
        )
        for place, found in zip(opened, accuracies, strict=True)
    ]


def in_order(entries: Sequence[Entry], runtimes: Sequence[str]) -> list[Entry]:
    """Sort entries by backbone, then by runtime; baselines stay before targets."""
    keys = list(dict.fromkeys(entry.key for entry in entries))
    return sorted(entries, key=lambda entry: (keys.index(entry.key), runtimes.index(entry.runtime)))


def rows(entries: Sequence[Entry], timings: Sequence[Timing]) -> list[Row]:
    """Return the rows, each with its ratios to the dense backbone in the same runtime if there is one."""
    found: list[Row] = []
    bases: dict[tuple[Key, str], Timing | None] = {}
    several = len({entry.runtime for entry in entries}) > 1
    for entry, timing in zip(entries, timings, strict=True):
        row = entry.row(timing)
        base = bases.setdefault((entry.key, entry.runtime), timing if row.is_dense else None)
        name = f"{row.name}, {entry.runtime}" if several else row.name
        found.append(replace(row, name=name, runtime=entry.runtime, latency_ratio=_ratios(timing, base)))
    return found


def _ratios(timing: Timing, base: Timing | None) -> dict[int, float]:
    if base is None:
        return {}
    return {batch: latency.ratio_to(base.latency[batch]) for batch, latency in timing.latency.items()}


def _reference_row(reference: Reference, converted: int, timing: Timing) -> Row:
    path = reference.path
    size, file = (converted or path.stat().st_size, path.name) if path else (0, "")
    return Row(reference.name, file, size, reference.metadata, timing, {})


def _row(target: Target, accuracies: tuple[Accuracy, ...], note: str, place: InRuntime, timing: Timing) -> Row:
    size, file = place.bytes, target.path.name
    masking, parity = target.masking, place.parity
    return Row(target.name, file, size, target.metadata, timing, {}, accuracies, note, masking, parity=parity)
