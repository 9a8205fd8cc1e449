"""A file in each of several runtimes: opened, and compared with ONNX Runtime."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UserError
from zoo.export.runtime_parity import check_answers, check_precision
from zoo.latency.measure import Program
from zoo.latency.session import Device, OnnxModel
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT, RUNTIMES, TIMING, Runtime, Session, Source
from zoo.screen import note


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


@dataclass(frozen=True)
class LeftOut:
    """A file that a runtime cannot run, or answers otherwise for, and why."""

    name: str
    runtime: str
    reason: str


def open_in(
    runtimes: dict[str, Runtime],
    source: Source,
    metadata: Metadata,
    device: Device,
    threads: int,
    folder: Path,
    say: Callable[[str], None] = lambda text: None,
    left_out: list[LeftOut] | None = None,
) -> list[InRuntime]:
    """Open a classifier in each runtime and compare its logits with ONNX Runtime's.

    Args:
        runtimes: by name.
        source: the file that `zoo export` wrote, and its network.
        metadata: of the file.
        device, threads: of the sessions.
        folder: where converted files are written.
        say: called with a line on each conversion.
        left_out: where runtimes go that cannot run it, with the reason; None: that is an error.

    Raises:
        UserError: a runtime cannot convert or open the file, or answers otherwise in fp32. In lower precision runtimes
            round differently, so a difference is only reported.
    """
    if left_out is None:
        check_precision(runtimes, source.file, source.precision)
    reference = OnnxModel(source.file, device, threads)
    found = []
    for name, runtime in runtimes.items():
        say(f"opening {source.file.name} in {name}")
        check_version(name, runtime, metadata, source.file)
        try:
            check_precision({name: runtime}, source.file, source.precision)
            found.append(_open_in(name, runtime, source, reference, folder))
        except UserError as error:
            if left_out is None:
                raise
            left_out.append(LeftOut(f"{metadata.arch}, {source.file.name}", name, str(error)))
    return found


def _open_in(name: str, runtime: Runtime, source: Source, reference: OnnxModel, folder: Path) -> InRuntime:
    if name == DEFAULT:
        return InRuntime(name, reference, source.file, None, source.file.stat().st_size)
    place = folder / f"{name}-{len(list(folder.iterdir()))}"
    place.mkdir()
    converted = runtime.convert(source, place)
    session = runtime.open(converted, runtime.threads(reference.threads))
    parity = check_answers(name, runtime, session, reference, source)
    spec = {"runtime": name, "file": str(converted), "image_shape": reference.metadata.image_shape}
    size = sum(part.stat().st_size for part in runtime.files(converted))
    return InRuntime(name, session, Program(TIMING, json.dumps(spec)), parity, size)


def check_version(name: str, runtime: Runtime, metadata: Metadata, file: Path) -> None:
    """Say so if a file was written for another version of a runtime: its forms may not be the fastest here."""
    if metadata.runtime == name and metadata.runtime_version not in ("", here := runtime.version()):
        note(f"{file} was written for {name} {metadata.runtime_version}, this is {here}: export it again")
