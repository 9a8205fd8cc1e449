"""Classify image files with a model or an exported file, prepared as for an evaluation. Nothing here needs PyTorch."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import UserError, first_line
from zoo.latency.session import OnnxModel
from zoo.serving.serve import eight_bits, fitted, on_white, upright

BATCH = 16
"""Images in one run of a model."""
NAMED = 10
"""Files that a message names, at most."""


@dataclass(frozen=True)
class Classifier:
    """What a prediction needs of a model.

    Attributes:
        logits: of images as `prepare` returns them, (B, ...) to (B, classes).
        class_names: in the order of the logits.
        image_shape: (channels, height, width).
        preprocesses: whether it takes uint8 images of any size.
    """

    logits: Callable[[NDArray[Any]], NDArray[Any]]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocesses: bool = False

    @classmethod
    def of_file(cls, path: Path, threads: int | None = None) -> "Classifier":
        """Open an exported file, on the CPU.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        model = OnnxModel(path, "cpu", threads, raw=True)
        return cls(model.logits, model.metadata.class_names, model.metadata.image_shape, model.preprocesses)


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one file, best first: name and probability, in 0..1."""

    file: Path
    classes: tuple[tuple[str, float], ...]


def image_paths(given: Sequence[Path]) -> list[Path]:
    """Return the files that paths stand for: a folder for the images in it, at any depth; hidden ones are left out.

    Raises:
        UserError: paths do not exist, or a folder holds no image; all of them are named.
    """
    if missing := [path for path in given if not path.exists()]:
        raise UserError(f"no such file or folder: {_listed(missing)}")
    found = {path: list(_images_in(path)) if path.is_dir() else [path] for path in given}
    if empty := [path for path, images in found.items() if not images]:
        raise UserError(f"no images in {_listed(empty)}: files are known by their suffix, such as .jpg or .png")
    return list(dict.fromkeys(image for images in found.values() for image in images))


def _images_in(folder: Path) -> Iterator[Path]:
    registered = Image.registered_extensions()
    # Pillow only writes some formats, such as PDF, and only recognises MPEG.
    known = {suffix for suffix, kind in registered.items() if kind in Image.OPEN and kind != "MPEG"}
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith("."))
        yield from (Path(here, name) for name in names if Path(name).suffix.lower() in known)


def predict(
    model: Classifier, paths: Iterable[Path], top: int, unread: dict[Path, str], step: Callable[[], None] = lambda: None
) -> Iterator[Prediction]:
    """Yield the likeliest classes of each file.

    Args:
        model: which classifies.
        paths: of image files.
        top: how many classes of each, at most.
        unread: filled with the files that could not be read, and why; they are left out.
        step: called after each file.
    """
    size, rest = (1 if model.preprocesses else BATCH), iter(paths)
    while part := list(islice(rest, size)):
        images: dict[Path, NDArray[Any]] = {}
        for path in part:
            try:
                images[path] = prepare(path, model)
            except Exception as error:  # decoders of damaged files raise whatever they stumble over
                unread[path] = first_line(error)
        if images:
            logits = model.logits(np.stack(list(images.values())))
            for path, row in zip(images, logits, strict=True):
                yield Prediction(path, _best(row, model.class_names, top))
        for _ in part:
            step()


def prepare(path: Path, model: Classifier) -> NDArray[Any]:
    """Decode an image file upright, and prepare it as images are prepared for an evaluation.

    Returns:
        float32 (channels, height, width) in [0, 1], or uint8 (h, w, channels) for a model that preprocesses.
    """
    channels, height, width = model.image_shape
    with Image.open(path) as file:
        image = on_white(eight_bits(upright(file))).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return pixels if model.preprocesses else fitted(pixels, height, width)


def _best(logits: NDArray[Any], names: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    order = np.argsort(-weights, kind="stable")[:top]
    return tuple((names[i], float(weights[i] / weights.sum())) for i in order)


def check_all_read(unread: dict[Path, str]) -> None:
    """Raise `UserError` if files could not be read; it names them."""
    if unread:
        why = [f"{path} ({reason})" for path, reason in unread.items()]
        count = "1 file is not a readable image" if len(why) == 1 else f"{len(why)} files are not readable images"
        raise UserError(f"{count}, left out: {_listed(why)}")


def _listed(things: Sequence[object]) -> str:
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return ", ".join(map(str, things[:NAMED])) + more
