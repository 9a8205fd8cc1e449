"""A file in each of several runtimes: opened, and compared with ONNX Runtime."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from zoo.errors import UserError
from zoo.export.parity import LIMIT, relative_difference
from zoo.latency.measure import Program
from zoo.latency.session import Device, OnnxModel
from zoo.latency.timing import random_images
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT, RUNTIMES, TIMING, Runtime, Session

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
    """

    runtime: str
    session: Session
    program: Path | Program
    parity: float | None


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
    runtimes: dict[str, Runtime], file: Path, metadata: Metadata, device: Device, threads: int, folder: Path
) -> list[InRuntime]:
    """Open a file in each runtime and compare its logits with ONNX Runtime's.

    Args:
        runtimes: by name.
        file: that `zoo export` wrote.
        metadata: of the file.
        device, threads: of the sessions.
        folder: where converted files are written.

    Raises:
        UserError: a runtime cannot open the file, or answers otherwise in fp32. In lower precision runtimes round
            differently, so a difference is only reported.
    """
    reference = OnnxModel(file, device, threads)
    found = []
    for name, runtime in runtimes.items():
        if name == DEFAULT:
            found.append(InRuntime(name, reference, file, None))
            continue
        place = folder / f"{name}-{len(list(folder.iterdir()))}"
        place.mkdir()
        converted = runtime.convert(file, place)
        session = runtime.open(converted, runtime.threads(threads))
        parity, image = _difference(session, reference, metadata)
        if metadata.precision == "fp32" and not parity <= LIMIT:
            raise UserError(
                f"{name} {runtime.version()} answers otherwise than ONNX Runtime for {file}: logits differ by "
                f"{parity:.1e} of the largest (image {image + 1} of {PARITY_IMAGES} random ones), the limit is "
                f"{LIMIT:.0e}: it must not be used there"
            )
        spec = {"runtime": name, "file": str(converted), "image_shape": metadata.image_shape}
        found.append(InRuntime(name, session, Program(TIMING, json.dumps(spec)), parity))
    return found


def _difference(session: Session, reference: Session, metadata: Metadata) -> tuple[float, int]:
    """Return the largest relative difference of logits, and the image that it is of."""
    images = random_images(PARITY_IMAGES, metadata.image_shape)
    parts = [images[:1], *(images[i : i + PARITY_BATCH] for i in range(1, PARITY_IMAGES, PARITY_BATCH))]
    here, there = (torch.cat([torch.from_numpy(x.logits(part)) for part in parts]) for x in (reference, session))
    if here.shape != there.shape:
        return float("inf"), 0
    each = (there - here).abs().amax(1)
    return relative_difference(there, here), int(each.nan_to_num(float("inf")).argmax())
