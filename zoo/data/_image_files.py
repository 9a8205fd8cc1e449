"""Which files of a folder are images."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image, features

HEIC = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
AVIF = frozenset({".avif", ".avifs"})
NOT_FOR_PICTURES = frozenset({"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow knows but cannot decode by itself, or not into pictures; for EPS it runs another program."""


def visible_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in one, links among them; hidden ones (of editors and notebooks) are left out."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not _is_hidden(p.name)))


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder at any depth, sorted, those whose suffix is that of an image.

    Links are followed; a folder that several of them lead to, or that lies above itself, is read once. Hidden files and
    folders are left out: notebooks keep copies in ``.ipynb_checkpoints``, macOS writes ``._NAME`` beside a file.
    """
    return [path for path in visible_files(folder) if is_image(path)]


def visible_files(folder: Path) -> list[Path]:
    """Return the files in a folder at any depth, sorted, without hidden ones; see `image_files`."""
    return sorted(_visible_files(folder, set()))


def is_image(path: Path) -> bool:
    """Whether a file's suffix is that of an image, one that needs another package to be read among them."""
    return path.suffix.lower() in _suffixes() | HEIC | AVIF


def missing_decoder(path: Path) -> str:
    """Return the command that installs what reads a file, ``""`` if it is there or none is needed."""
    suffix = path.suffix.lower()
    if suffix in HEIC and not reads_heic():
        return "pip install 'robust-zoo[heic]'"
    if suffix in AVIF and not features.check("avif"):
        return "pip install --upgrade pillow"
    return ""


@cache
def reads_heic() -> bool:
    """Whether Pillow reads HEIC, which pillow-heif, an optional package, teaches it."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def _suffixes() -> frozenset[str]:
    reads_heic()
    known = Image.registered_extensions()  # of formats that can only be written, too
    return frozenset(s for s, kind in known.items() if kind in Image.OPEN and kind not in NOT_FOR_PICTURES)


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
