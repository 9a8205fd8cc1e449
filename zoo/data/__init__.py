"""Image data sets: one file of this package is one data set; images are uint8 until they are on the device."""

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from zoo.data._base import DataSet, Source
from zoo.data._loader import EvalBatches, TrainBatches, mixed_seed
from zoo.data._pixels import to_unit
from zoo.data._policies import Strength, augmentation, mixing
from zoo.data._spec import data_name, parsed_options, with_options
from zoo.data._split import stratified, train_val
from zoo.errors import UserError
from zoo.files import user_path
from zoo.plugins import Plugins

DATA: Plugins[DataSet] = Plugins("data set", "zoo.data", DataSet)


def open_data(
    data: str, *, data_dir: Path | None = None, download: bool = False, image_size: int | None = None
) -> DataSet:
    """Return a data set by name.

    Args:
        data: a name of `DATA`, with options or without, such as ``imagefolder(test_fraction=0.2)``.
        data_dir: where its files are (not needed for ``digits``).
        download: fetch them there first if they are missing.
        image_size: side in pixels, for data sets whose images have no size of their own.

    Raises:
        UserError: unknown name, missing or damaged files, or a size that the images cannot have.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"image-size must be at least 1 pixel, got {image_size}")
    found = _open(data, data_dir, download, image_size)
    _, height, width = found.image_shape
    if image_size not in (None, height):
        raise UserError(f"--image-size {image_size}: the images of {data} have {height} x {width} pixels; leave it out")
    return found


def data_class(data: str) -> type[DataSet]:
    """Return the class of a data set, given with options or without.

    Raises:
        UserError: there is none of that name.
    """
    return DATA.get(data_name(data))


def _open(data: str, data_dir: Path | None, download: bool, image_size: int | None) -> DataSet:
    if not data:
        raise UserError(
            "this model names no data set, as it was compressed without one: "
            "`zoo evaluate RUN --data NAME --data-dir DIR` records one"
        )
    kind = data_class(data)
    _, options = parsed_options(data, kind.options)
    return kind(data_dir and user_path(data_dir), download, image_size, **options)


def check_data_dir(data: str, data_dir: Path | None) -> None:
    """Refuse a folder given for a data set without files: the user expects other images than it has.

    Raises:
        UserError: a folder was given.
    """
    if data_dir is not None and data_class(data).built_in:
        raise UserError(
            f"--data-dir {data_dir}: {data} is built in and has no files; leave it out (a training on other data says "
            "so with --data, such as --data cifar10 or --data imagefolder)"
        )


def open_known(
    data: str,
    *,
    data_dir: Path | None,
    download: bool,
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
) -> DataSet:
    """Return the data set that a model was trained on.

    Args:
        data, data_dir, download: see `open_data`.
        image_shape: (C, H, W) that the model takes.
        class_names: of the model, in the order of its logits.

    Raises:
        UserError: see `open_data`; or the data set has other classes, or images of another shape.
    """
    found = _open(data, data_dir, download, image_shape[1])
    if found.image_shape != image_shape:
        here, there = (f"{h} x {w} pixels in {c} channels" for c, h, w in (found.image_shape, image_shape))
        raise UserError(f"the images of {data} have {here}, the model takes {there}: give data of the model's images")
    _check_classes(data, found.class_names, class_names)
    return found


def load_test(
    data: str,
    *,
    data_dir: Path | None,
    download: bool,
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
    n: int | None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the test images and labels that a model is measured on.

    Args:
        data, data_dir, download, image_shape, class_names: see `open_known`.
        n: number of images, drawn with the same share of every class; None or too many for all of them.
        seed: of that draw.

    Returns:
        Images (n, C, H, W), uint8, and labels (n,), int64.

    Raises:
        UserError: see `open_known`.
    """
    found = open_known(data, data_dir=data_dir, download=download, image_shape=image_shape, class_names=class_names)
    source = found.source(train=False)
    indices = stratified(source.labels, n, seed)
    return source.fetch(indices), source.labels[indices]


def load_other(
    data: str, *, data_dir: Path | None, download: bool, image_size: int, n: int | None, seed: int = 0
) -> Tensor:
    """Return test images of a data set that a model was not trained on, of whatever shape.

    Args:
        data, data_dir, download: see `open_data`.
        image_size: side in pixels, for data sets whose images have no size of their own.
        n: number of images, drawn with the same share of every class; None or too many for all of them.
        seed: of that draw.

    Returns:
        Images (n, C, H, W), uint8.

    Raises:
        UserError: unknown name, or missing or damaged files.
    """
    check_data_dir(data, data_dir)
    source = _open(data, data_dir, download, image_size).source(train=False)
    return source.fetch(stratified(source.labels, n, seed))


def training_rows(data: DataSet, labels: Tensor, n: int, val_fraction: float, seed: int) -> Tensor:
    """Return rows of the train split to calibrate on, the same share of every class, none of them for validation.

    Args:
        data: the data set.
        labels: of its train split, (N,).
        n: how many; too many for all of them.
        val_fraction: share of the training images that is kept for validation.
        seed: of the draw.
    """
    training, _ = data.train_val(labels, val_fraction)
    return training[stratified(labels[training], n, seed)]


def are_placeholders(class_names: Sequence[str]) -> bool:
    """Return whether classes only have numbers (``class_0``, ``LABEL_0``), as those of a checkpoint without names."""
    return all(re.fullmatch(r"(class|LABEL)_\d+", name) for name in class_names)


def _check_classes(data: str, found: Sequence[str], known: Sequence[str]) -> None:
    if len(found) != len(known):
        difference = f"{data} has {len(found)} classes here, the model {len(known)}"
    elif are_placeholders(known):
        return
    elif differing := [(here, there) for here, there in zip(found, known, strict=True) if here != there]:
        difference = f"{data} has a class {differing[0][0]} here where the model has {differing[0][1]}"
    else:
        return
    raise UserError(f"{difference}: give the data that it was trained on with --data-dir")


__all__ = [
    "DATA",
    "DataSet",
    "EvalBatches",
    "Source",
    "Strength",
    "TrainBatches",
    "are_placeholders",
    "augmentation",
    "check_data_dir",
    "data_class",
    "data_name",
    "load_other",
    "load_test",
    "mixed_seed",
    "mixing",
    "open_data",
    "open_known",
    "stratified",
    "to_unit",
    "train_val",
    "training_rows",
    "with_options",
]
