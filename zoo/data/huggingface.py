"""Data sets of Hugging Face, from the hub or a folder, by its own library."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from zoo.data._encoded import Encoded
from zoo.data._own_images import OwnImages
from zoo.errors import UserError, first_line

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


class HuggingFace(OwnImages):
    """A data set of Hugging Face: huggingface(name=OWNER/NAME), or a folder with --data-dir; --image-size: the side.

    A folder is one that ``save_to_disk`` wrote, or of anything that ``load_dataset`` takes (parquet files, a clone of a
    repository). ``image`` and ``label`` name the columns where the library does not say which they are, ``config`` one
    of several configurations. Needs ``pip install 'robust-zoo[datasets]'``.
    """

    options: ClassVar[dict[str, type]] = {
        "name": str, "config": str, "image": str, "label": str, "test_fraction": float,
    }  # fmt: skip

    def __init__(
        self,
        root: Path | None,
        download: bool,
        image_size: int | None,
        *,
        name: str | None = None,
        config: str | None = None,
        image: str | None = None,
        label: str | None = None,
        test_fraction: float | None = None,
    ) -> None:
        super().__init__(root, download, image_size, test_fraction)
        if (root is None) == (name is None):
            raise UserError(
                "huggingface needs a folder with --data-dir, or a name: --data 'huggingface(name=OWNER/NAME)'"
            )
        self.title = name or str(root)
        self._tables = _by_split(_opened(root, name, config), self.title)
        train = self._tables["train"]
        self._image = image or _column(train, "Image", ("image", "img"), self.title)
        self._label = label or _column(train, "ClassLabel", ("label", "labels", "class"), self.title)
        for column in (self._image, self._label):
            if column not in train.column_names:
                raise UserError(f"{self.title} has no column {column}: it has {', '.join(train.column_names)}")
        self._labels = {split: list(table[self._label]) for split, table in self._tables.items()}
        self.class_names = self._names()
        if "test" in self._tables and test_fraction is not None:
            raise UserError(f"--test-fraction {test_fraction:g}: {self.title} has a test split; leave it out")
        if "test" not in self._tables:
            if "validation" in self._tables and test_fraction is None:  # of two splits, the second is measured on
                for held in (self._tables, self._labels):
                    held["test"] = held.pop("validation")
            else:
                self.hold_out("the split train")

    def read(self) -> dict[str, Encoded]:
        """Return the images of each split."""
        from datasets import Image

        index = {name: i for i, name in enumerate(self.class_names)}

        def encoded(split: str, table: Any) -> Encoded:
            table = table.cast_column(self._image, Image(decode=False))  # which would not turn photographs
            named = hasattr(table.features[self._label], "names")
            labels = tuple(-1 if x is None else int(x) if named else index.get(str(x), -1) for x in self._labels[split])
            if unknown := [row for row, x in enumerate(labels) if not 0 <= x < len(self.class_names)]:
                where = f"{self.title}: row {unknown[0]} of {split}"
                raise UserError(f"{where} has no label of the split train ({len(unknown)} such rows)")

            def opened(row: int) -> Path | BytesIO:
                image = table[row][self._image]
                if image is None:
                    raise UserError(f"{self.title}: row {row} of {split} has no image: remove it")
                return BytesIO(image["bytes"]) if image["bytes"] is not None else Path(image["path"])

            return Encoded(labels, opened, lambda row: f"{self.title}: row {row} of {split}")

        return {split: encoded(split, table) for split, table in self._tables.items()}

    def key(self, images: Encoded, row: int) -> str:
        """Return an image's row: a table has no other names."""
        return images.where(row).removeprefix(self.title)

    def _names(self) -> tuple[str, ...]:
        feature = self._tables["train"].features[self._label]
        names = getattr(feature, "names", None) or sorted({str(x) for x in self._labels["train"] if x is not None})
        if len(names) < 2:
            raise UserError(f"{self.title} has one class in its column {self._label}, and needs two at least")
        return tuple(names)


def _opened(root: Path | None, name: str | None, config: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("data sets of Hugging Face need `pip install 'robust-zoo[datasets]'`") from None
    datasets.disable_progress_bars()
    if root is not None and not root.is_dir():
        raise UserError(f"huggingface: there is no folder {root}; correct --data-dir")
    try:
        if root is not None and any((root / file).is_file() for file in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(root))
        return datasets.load_dataset(name or str(root), config)
    except Exception as error:  # files, network, formats: each raises its own
        raise UserError(f"huggingface: {name or root} cannot be opened ({first_line(error)})") from None


def _by_split(found: Any, title: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        return {"train": found}
    tables = {
        split: next(found[name] for name in names if name in found)
        for split, names in SPLITS.items()
        if any(name in found for name in names)
    }
    if "train" not in tables:
        raise UserError(f"{title} has no split train: it has {', '.join(found)}")
    return tables


def _column(table: Any, kind: str, usual: Sequence[str], title: str) -> str:
    """Return the column of a kind, or one with a usual name."""
    typed = [name for name, feature in table.features.items() if type(feature).__name__ == kind]
    named = [name for name in usual if name in table.column_names]
    if typed or named:
        return str((typed or named)[0])
    option = "image" if kind == "Image" else "label"
    raise UserError(
        f"{title} does not say which of its columns is the {option}: give huggingface({option}=NAME), one of "
        f"{', '.join(table.column_names)}"
    )
