"""Files of images: which ones a folder holds, and their pixels."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.errors import UserError, first_line


def visible_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in one, links among them; hidden ones (of editors and notebooks) are left out."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name)))


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder at any depth, sorted, those that Pillow knows by their suffix.

    Links are followed; a folder that several of them lead to, or that lies above itself, is read once. Hidden files and
    folders are left out: notebooks keep copies in ``.ipynb_checkpoints``, macOS writes ``._NAME`` beside a file.
    """
    known = set(Image.registered_extensions())
    return sorted(path for path in _visible_files(folder, set()) if path.suffix.lower() in known)


def decode(path: Path, size: int) -> Tensor:
    """Return an image's central square at ``size`` pixels a side: (3, size, size), uint8.

    Raises:
        UserError: the file is no image, is damaged, or is so large that Pillow takes it for an attack.
    """
    try:
        with Image.open(path) as file:
            image = _eight_bits(file).convert("RGB")
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise UserError(f"{path} cannot be read as an image ({first_line(error)}): repair or remove it") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _visible_files(folder: Path, read: set[Path]) -> Iterator[Path]:
    """Yield what is no folder; ``read`` holds the folders that were read already, without links."""
    if not folder.is_dir() or (place := folder.resolve()) in read:
        return
    read.add(place)
    with os.scandir(folder) as listed:  # tells files from folders without a look at each
        entries = sorted((entry for entry in listed if not _is_hidden(entry.name)), key=lambda entry: entry.name)
    for entry in entries:
        # os.path.isdir, unlike the entry, takes a link to itself for no folder, as it does one to nothing.
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            yield from _visible_files(Path(entry.path), read)
        else:
            yield Path(entry.path)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return grey pixels of 16 bits at 8, which Pillow's own conversion would cut off at white, and others as they are.

    The server does the same (`zoo.serving.serve`), in a file that must run without this package.

    Raises:
        OSError: the pixels are of 32 bits: which value is white is not known.
    """
    if image.mode in ("I", "F"):
        raise OSError("pixels of 32 bits, whose white is not known: convert them to 8 or 16 bits")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
