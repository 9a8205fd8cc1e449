"""Any tree of image files, one folder per class."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from PIL import Image

from zoo.data._encoded import Encoded
from zoo.data._folders import FORMS, Folders, stray_files
from zoo.data._inspect import Inspected, inspect_all, refusal, relative
from zoo.data._own_images import OwnImages
from zoo.data._summary import details
from zoo.errors import UserError


class ImageFolder(OwnImages):
    """Any tree of image files, in folders of classes; --image-size gives their side.

    DIR/train/CLASS/* with DIR/test/CLASS/* or DIR/val/CLASS/*, or both, and then the training is validated on val. A
    train split alone, or DIR/CLASS/* with ``test_fraction``: some of its images are held out to measure on, the same
    ones as long as the files keep their names. With ``skip_corrupt``, files that cannot be read are left out.
    """

    options: ClassVar[dict[str, type]] = {"test_fraction": float, "skip_corrupt": bool}

    def __init__(
        self,
        root: Path | None,
        download: bool,
        image_size: int | None,
        *,
        test_fraction: float | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(root, download, image_size, test_fraction)
        if root is None:
            raise UserError(f"imagefolder needs --data-dir DIR with {FORMS}")
        if not root.is_dir():
            raise UserError(f"imagefolder: there is no folder {root}; correct --data-dir")
        # Large photographs are no attack here: they are the user's own, and the summary names them.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # such images are taken as they lie
        self.folder, self.title, self.skip_corrupt = root, str(root), skip_corrupt
        self.folders = Folders.of(root, test_fraction)
        self.folders.check_images()
        self.class_names = self.folders.class_names
        if self.folders.test is None:
            self.hold_out("the images" if self.folders.train == root else f"{self.folders.train.name}/")

    def read(self) -> dict[str, Encoded]:
        """Return the usable images by split, in the order of the labels.

        Raises:
            UserError: images cannot be read, of whichever split; all of them are named.
        """
        if self._damaged and not self.skip_corrupt:
            raise refusal(self.folder, self._damaged)
        found = {}
        for split in self.folders.parts:
            rows = [(each.path, label) for each, label, of in self._inspected if of == split and not each.problem]
            found[split] = Encoded.files([path for path, _ in rows], [label for _, label in rows])
        return found

    def key(self, images: Encoded, row: int) -> str:
        """Return an image's path below the folder of its split."""
        return relative(self.folders.train, Path(images.where(row)))

    def places(self) -> dict[str, str]:
        """Return the folders of the splits."""
        return {split: f"{folder.name}/" for split, folder in self.folders.parts.items() if split != "train"}

    def details(self) -> Sequence[str]:
        """Return the sizes of the images, and what is skipped and why."""
        stray = sum(stray_files(folder) for folder in self.folders.parts.values())
        used = [each for each, _, _ in self._inspected if not each.problem]
        return details(self.folder, used, self._damaged, self.folders.other_files, stray)

    @cached_property
    def _damaged(self) -> list[Inspected]:
        return [each for each, _, _ in self._inspected if each.problem]

    @cached_property
    def _inspected(self) -> list[tuple[Inspected, int, str]]:
        """Every image with its label and its split; those of all splits are looked at together."""
        parts = self.folders.parts.items()
        listed = [(*found, split) for split, folder in parts for found in self.folders.images(folder)]
        inspected = inspect_all(self.folder, [path for path, _, _ in listed])
        return [(each, label, split) for each, (_, label, split) in zip(inspected, listed, strict=True)]
