"""Image data sets: one file of this package is one data set; images are uint8 until they are on the device."""

from pathlib import Path

from torch import Tensor

from zoo.data._base import DataSet
from zoo.data._split import stratified
from zoo.plugins import Plugins

DATA: Plugins[DataSet] = Plugins("data set", "zoo.data", DataSet)


def open_data(
    data: str, *, data_dir: Path | None = None, download: bool = False, image_size: int | None = None
) -> DataSet:
    """Return a data set by name.

    Args:
        data: a name of `DATA`.
        data_dir: where its files are (not needed for ``digits``).
        download: fetch them there first if they are missing.
        image_size: side in pixels, for data sets whose images have no size of their own.

    Raises:
        UserError: unknown name, or missing or damaged files.
    """
    return DATA.get(data)(data_dir, download, image_size)


def load_test(
    data: str,
    *,
    data_dir: Path | None,
    download: bool,
    image_shape: tuple[int, int, int],
    n: int | None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return test images and labels.

    Args:
        data, data_dir, download: see `open_data`.
        image_shape: (C, H, W) that the model takes.
        n: number of images, drawn with the same share of every class; None or too many for all of them.
        seed: of that draw.

    Returns:
        Images (n, C, H, W), uint8, and labels (n,), int64.
    """
    source = open_data(data, data_dir=data_dir, download=download, image_size=image_shape[1]).source(train=False)
    indices = stratified(source.labels, n, seed)
    return source.fetch(indices), source.labels[indices]


__all__ = ["DATA", "DataSet", "load_test", "open_data", "stratified"]
