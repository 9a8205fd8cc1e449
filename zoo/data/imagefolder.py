"""Any tree of image files, one folder per class."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.data._augment import Augmentation
from zoo.data._base import DataSet, Source, TensorSource
from zoo.data._image_files import decode, image_files, visible_folders
from zoo.errors import UserError
from zoo.runtime.processors import usable_processors

TEST_FOLDERS = ("test", "val", "validation")
IN_MEMORY = 2 * 2**30
"""Splits of at most this many bytes are decoded once and kept as one tensor; larger ones are decoded per batch."""


@dataclass(frozen=True)
class FileSource:
    """A split whose images stay on disk and are decoded by threads on request."""

    paths: tuple[Path, ...]
    labels: Tensor
    size: int
    pool: ThreadPoolExecutor

    def __deepcopy__(self, memo: object) -> "FileSource":
        # A copy of the training module (such as an average of its weights) shares it: threads cannot be copied.
        return self

    def fetch(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, size, size), uint8."""
        chosen = [self.paths[i] for i in indices.tolist()]
        return torch.stack(list(self.pool.map(lambda path: decode(path, self.size), chosen)))

    def to(self, device: torch.device) -> "FileSource":
        """Return the split itself: its batches are moved one at a time."""
        return self


class ImageFolder(DataSet):
    """Any tree of image files: DIR/train/CLASS/* and DIR/test/CLASS/* (or val); --image-size gives their side."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, root: Path | None, download: bool, image_size: int | None) -> None:
        super().__init__(root, download, image_size)
        if root is None:
            raise UserError("imagefolder needs --data-dir DIR with DIR/train/CLASS/* and DIR/test/CLASS/*")
        if not root.is_dir():
            raise UserError(f"imagefolder: there is no folder {root}; correct --data-dir")
        self.size = 224 if image_size is None else image_size
        self.image_shape = (3, self.size, self.size)
        self.augmentation = Augmentation(shift=self.size // 8, flip=True)
        self.folder = {True: root / "train", False: self._test_folder(root)}
        self.class_names = self._classes(self.folder[True])
        self._check_test_classes(self.folder[False])

    @staticmethod
    def _test_folder(root: Path) -> Path:
        for name in TEST_FOLDERS:
            if (root / name).is_dir():
                return root / name
        raise UserError(f"{root} has no test split: it needs a folder {' or '.join(TEST_FOLDERS)}")

    @staticmethod
    def _classes(folder: Path) -> tuple[str, ...]:
        names = visible_folders(folder)
        if len(names) < 2:
            raise UserError(f"{folder} must hold one folder per class, at least two; it has {len(names)}")
        return names

    def _check_test_classes(self, folder: Path) -> None:
        """Refuse, before the training, whatever would make its figures wrong or impossible."""
        if unknown := sorted(set(visible_folders(folder)) - set(self.class_names)):
            raise UserError(
                f"{folder / unknown[0]} is not a class of {self.folder[True]}: remove it, or give it training images"
            )
        if not any(image_files(folder / name) for name in self.class_names):
            raise UserError(f"{folder} holds no images of the classes in {self.folder[True]}")

    def source(self, train: bool) -> Source:
        """Return the split as one tensor if it is small, decoded batch by batch otherwise."""
        folder = self.folder[train]
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            found = image_files(folder / name)
            if train and not found:
                raise UserError(f"class folder {folder / name} holds no images")
            paths += found
            labels += [label] * len(found)
        source = FileSource(tuple(paths), torch.tensor(labels), self.size, ThreadPoolExecutor(usable_processors()))
        if len(paths) * 3 * self.size**2 > IN_MEMORY:
            return source
        return TensorSource(source.fetch(torch.arange(len(paths))), source.labels)
