"""What is wrong with image files, found before a training by decoding each of them once."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import PIL
from PIL import Image

from zoo.data._decode import eight_bits, orientation
from zoo.data._image_files import missing_decoder
from zoo.errors import UserError, first_line
from zoo.files import atomic, cache_folder
from zoo.runtime.processors import usable_processors

SMALLEST = 4
"""Images of fewer pixels a side show nothing; web pages have some of 1 x 1."""
LARGE = 80 * 10**6
"""Images of more pixels take a noticeable part of the memory each."""
NAMED = 20
"""Files that a message names; it counts the others."""


@dataclass(frozen=True)
class Inspected:
    """An image file that was looked at.

    Attributes:
        path: of the file.
        width, height: upright, in pixels; 0 if it cannot be read.
        problem: why it cannot be used, ``""`` if it can.
    """

    path: Path
    width: int
    height: int
    problem: str = ""

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def size(self) -> str:
        """In words."""
        return f"{self.width} x {self.height}"


def inspect(path: Path) -> Inspected:
    """Decode a file, a JPEG at an eighth of its size, and say what is wrong with it."""
    width = height = 0
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.draft("RGB", (1, 1))
            image.load()
            eight_bits(image)
            if orientation(image) > 4:
                width, height = height, width
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        return Inspected(path, 0, 0, first_line(error).replace(str(path), path.name))
    small = f"{width} x {height} pixels show nothing" if min(width, height) < SMALLEST else ""
    return Inspected(path, width, height, small)


def inspect_all(root: Path, paths: Sequence[Path]) -> list[Inspected]:
    """Inspect the files of a folder, in their order; what is known of files that have not changed is not read again."""
    cache = cache_folder() / "images" / f"{sha256(str(root.resolve()).encode()).hexdigest()[:32]}.json"
    known = _known(cache)
    entries = {path: _entry(root, path) for path in paths}
    new = [path for path, entry in entries.items() if entry not in known and not missing_decoder(path)]
    with ThreadPoolExecutor(usable_processors()) as pool:
        found = {entries[each.path]: (each.width, each.height, each.problem) for each in pool.map(inspect, new)}
    if found:
        known = {entry: known[entry] for entry in entries.values() if entry in known} | found
        _remember(cache, known)
    return [
        Inspected(path, 0, 0, f"needs {needed}")
        if (needed := missing_decoder(path))
        else Inspected(path, *known[entry])
        for path, entry in entries.items()
    ]


def refusal(root: Path, damaged: Sequence[Inspected]) -> UserError:
    """Return the error that names all files that cannot be used."""
    parts = []
    for needed in dict.fromkeys(map(missing_decoder, (each.path for each in damaged))):
        group = [each for each in damaged if missing_decoder(each.path) == needed]
        parts.append(_needs(root, needed, group) if needed else _cannot_be_read(root, group))
    return UserError("; ".join(parts))


def named(root: Path, files: Sequence[Inspected], *, why: bool) -> str:
    """Name the first files by their paths below a folder, with their problems if asked, and count the others."""
    shown = [relative(root, each.path) + (f" ({each.problem})" if why else "") for each in files[:NAMED]]
    more = [f"{len(files) - NAMED} more"] if len(files) > NAMED else []
    return ", ".join([*shown, *more])


def relative(root: Path, path: Path) -> str:
    """Return a path as seen from a folder above it."""
    return path.relative_to(root).as_posix()


def _needs(root: Path, command: str, files: Sequence[Inspected]) -> str:
    one = len(files) == 1
    return (
        f"{root}: {len(files)} image{'' if one else 's'} need{'s' if one else ''} `{command}`, or --skip-corrupt true "
        f"to leave {'it' if one else 'them'} out: {named(root, files, why=False)}"
    )


def _cannot_be_read(root: Path, files: Sequence[Inspected]) -> str:
    if len(files) == 1:
        start = f"{files[0].path} cannot be read as an image ({files[0].problem})"
        return f"{start}: repair or remove it, or leave it out with --skip-corrupt true"
    return (
        f"{root}: {len(files)} files cannot be read as images: {named(root, files, why=True)}: repair or remove them, "
        "or leave them out with --skip-corrupt true"
    )


def _entry(root: Path, path: Path) -> str:
    """Return what changes when a file does."""
    try:
        state = path.stat()
    except OSError:
        return f"{relative(root, path)} missing"
    return f"{relative(root, path)} {state.st_size} {state.st_mtime_ns}"


def _known(cache: Path) -> dict[str, tuple[int, int, str]]:
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["pillow"] != PIL.__version__:
            return {}
        return {str(entry): (int(w), int(h), str(problem)) for entry, (w, h, problem) in content["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _remember(cache: Path, known: dict[str, tuple[int, int, str]]) -> None:
    try:
        with atomic(cache) as temporary:
            temporary.write_text(json.dumps({"pillow": PIL.__version__, "files": known}), encoding="utf-8")
    except OSError:  # no place to write: the files are read again next time
        return
