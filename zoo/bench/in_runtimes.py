"""A file in each of several runtimes: opened, and compared with ONNX Runtime."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from zoo.bench.first_difference import first_difference
from zoo.errors import UserError
from zoo.export.parity import LIMIT, relative_difference
from zoo.latency.measure import Program
from zoo.latency.session import Device, OnnxModel
from zoo.latency.timing import random_images
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT, RUNTIMES, TIMING, Runtime, Session, Source
from zoo.screen import note

PARITY_IMAGES, PARITY_BATCH = 256, 51
"""Random images on which logits are compared: the first alone, the others in batches."""


@dataclass(frozen=True)
class InRuntime:
    """A file that is open in a runtime.

    Attributes:
        runtime: its name.
        session: gives logits.
        program: what is timed.
        parity: largest difference of logits from ONNX Runtime's, relative to the largest logit; None for that itself.
        bytes: size of what the runtime opens.
    """

    runtime: str
    session: Session
    program: Path | Program
    parity: float | None
    bytes: int


def choose_runtimes(names: Sequence[str], device: Device) -> dict[str, Runtime]:
    """Return the runtimes of these names, each of which is installed.

    Raises:
        UserError: there is no such runtime, some are not installed, or one other than ONNX Runtime was given a GPU.
    """
    found = {name: RUNTIMES.get(name)() for name in names}
    others = [name for name in names if name != DEFAULT]
    if others and device == "cuda":
        raise UserError(f"{', '.join(others)}: runs on the CPU here: give --device cpu, or --runtime {DEFAULT}")
    missing = []
    for runtime in found.values():
        try:
            runtime.version()
        except UserError as error:
            missing.append(str(error))
    if missing:
        raise UserError("; ".join(missing))
    return found


def open_in(
    runtimes: dict[str, Runtime],
    source: Source,
    metadata: Metadata,
    device: Device,
    threads: int,
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
) -> list[InRuntime]:
    """Open a classifier in each runtime and compare its logits with ONNX Runtime's.

    Args:
        runtimes: by name.
        source: the file that `zoo export` wrote, and its network.
        metadata: of the file.
        device, threads: of the sessions.
        folder: where converted files are written.
        say: called with a line on each conversion.

    Raises:
        UserError: a runtime cannot convert or open the file, or answers otherwise in fp32. In lower precision runtimes
            round differently, so a difference is only reported.
    """
    check_precision(runtimes, source)
    reference = OnnxModel(source.file, device, threads)
    found = []
    for name, runtime in runtimes.items():
        check_version(name, runtime, metadata, source.file)
        if name == DEFAULT:
            found.append(InRuntime(name, reference, source.file, None, source.file.stat().st_size))
            continue
        place = folder / f"{name}-{len(list(folder.iterdir()))}"
        place.mkdir()
        say(f"converting {source.file.name} for {name}")
        converted = runtime.convert(source, place)
        session = runtime.open(converted, runtime.threads(threads))
        parity = _checked(name, runtime, session, reference, source, metadata)
        spec = {"runtime": name, "file": str(converted), "image_shape": metadata.image_shape}
        size = sum(part.stat().st_size for part in runtime.files(converted))
        found.append(InRuntime(name, session, Program(TIMING, json.dumps(spec)), parity, size))
    return found


def check_precision(runtimes: dict[str, Runtime], source: Source) -> None:
    """Refuse a file in a precision that some of the runtimes do not run.

    Raises:
        UserError: names them all.
    """
    unfit = [name for name, runtime in runtimes.items() if source.precision not in runtime.precisions]
    if unfit:
        raise UserError(f"{source.file} is {source.precision}, which {', '.join(unfit)} cannot read: leave it out")


def check_version(name: str, runtime: Runtime, metadata: Metadata, file: Path) -> None:
    """Say so if a file was written for another version of a runtime: its forms may not be the fastest here."""
    if metadata.runtime == name and metadata.runtime_version not in ("", here := runtime.version()):
        note(f"{file}: written for {name} {metadata.runtime_version}, this is {here}: export it again to choose its forms")


def _checked(
    name: str, runtime: Runtime, session: Session, reference: OnnxModel, source: Source, metadata: Metadata
) -> float:
    """Return the largest relative difference of logits, which in fp32 must be within the limit."""
    parity, image = _difference(session, reference, metadata)
    if metadata.precision != "fp32" or parity <= LIMIT:
        return parity
    worst = random_images(PARITY_IMAGES, metadata.image_shape)[[image]]
    layer = first_difference(runtime, source, worst, reference.threads)
    where = f"first at {layer}" if layer else "though no layer alone does"
    raise UserError(
        f"{name} {runtime.version()} answers otherwise than ONNX Runtime for {source.file}: logits differ by "
        f"{parity:.1e} of the largest (image {image + 1} of {PARITY_IMAGES} random ones), {where}; the limit is "
        f"{LIMIT:.0e}: it must not be used there"
    )


def _difference(session: Session, reference: Session, metadata: Metadata) -> tuple[float, int]:
    """Return the largest relative difference of logits, and the image that it is of."""
    images = random_images(PARITY_IMAGES, metadata.image_shape)
    parts = [images[:1], *(images[i : i + PARITY_BATCH] for i in range(1, PARITY_IMAGES, PARITY_BATCH))]
    here, there = (torch.cat([torch.from_numpy(x.logits(part)) for part in parts]) for x in (reference, session))
    if here.shape != there.shape:
        return float("inf"), 0
    each = (there - here).abs().amax(1)
    return relative_difference(there, here), int(each.nan_to_num(float("inf")).argmax())
