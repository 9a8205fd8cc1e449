"""Check that another runtime gives the answers of ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from zoo.errors import UserError
from zoo.export.first_difference import first_difference
from zoo.export.parity import LIMIT, relative_difference
from zoo.latency.session import OnnxModel
from zoo.latency.timing import random_images
from zoo.runtimes import RUNTIMES, Runtime, Session, Source

Files = dict[str, bytes]
"""The content of a runtime's own files by suffix, such as ``.pte``."""
PARITY_IMAGES, PARITY_BATCH = 256, 51
"""Random images on which logits are compared: the first alone, the others in batches."""


def check_precision(runtimes: Mapping[str, Runtime], file: Path | str, precision: str) -> None:
    """Refuse a file in a precision that some of the runtimes do not run.

    Raises:
        UserError: names them all.
    """
    unfit = [name for name, runtime in runtimes.items() if precision not in runtime.precisions]
    if unfit:
        raise UserError(f"{file} is {precision}, which {', '.join(unfit)} cannot read: leave it out")


def check_answers(name: str, runtime: Runtime, session: Session, reference: OnnxModel, source: Source) -> float:
    """Compare a session's logits with ONNX Runtime's on random images.

    Args:
        name, runtime: of the session.
        session: the classifier in that runtime.
        reference: its ONNX file.
        source: what was converted, which is cut into parts if the answers differ.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        UserError: in fp32 it is above the limit; names the first layer at which the answers part, if one does alone.
    """
    parity, image = _difference(session, reference)
    if source.precision != "fp32" or parity <= LIMIT:
        return parity
    worst = random_images(PARITY_IMAGES, reference.metadata.image_shape)[[image]]
    layer = first_difference(runtime, source, worst, reference.threads)
    where = f"first at {layer}" if layer else "though no layer alone does"
    raise UserError(
        f"{name} {runtime.version()} answers otherwise than ONNX Runtime for {source.file}: logits differ by "
        f"{parity:.1e} of the largest (image {image + 1} of {PARITY_IMAGES} random ones), {where}; the limit is "
        f"{LIMIT:.0e}: it must not be used there"
    )


def in_runtime(name: str, source: Source, threads: int) -> tuple[Files, float]:
    """Convert a classifier for a runtime, and check its answers there.

    Args:
        name: of the runtime.
        source: to convert.
        threads: of its session.

    Returns:
        The runtime's own files, none if it reads the ONNX file; and the largest difference of logits, see
        `check_answers`.

    Raises:
        UserError: it cannot be converted or opened, or answers otherwise.
    """
    runtime = RUNTIMES.get(name)()
    with TemporaryDirectory() as folder:
        converted = runtime.convert(source, Path(folder))
        session = runtime.open(converted, runtime.threads(threads))
        parity = check_answers(name, runtime, session, OnnxModel(source.file, "cpu", threads), source)
        files = () if converted == source.file else runtime.files(converted)
        return {file.name.removeprefix("network"): file.read_bytes() for file in files}, parity


def _difference(session: Session, reference: OnnxModel) -> tuple[float, int]:
    """Return the largest relative difference of logits, and the image that it is of."""
    images = random_images(PARITY_IMAGES, reference.metadata.image_shape)
    parts = [images[:1], *(images[i : i + PARITY_BATCH] for i in range(1, PARITY_IMAGES, PARITY_BATCH))]
    here, there = (torch.cat([torch.from_numpy(x.logits(part)) for part in parts]) for x in (reference, session))
    if here.shape != there.shape:
        return float("inf"), 0
    each = (there - here).abs().amax(1)
    return relative_difference(there, here), int(each.nan_to_num(float("inf")).argmax())
