"""The cache of downloaded models: one folder per version of a model, complete or absent."""

from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from zoo.errors import UserError
from zoo.files import cache_folder, sha256
from zoo.hub._base import Hub
from zoo.hub.download import download
from zoo.hub.index import Entry, FileEntry
from zoo.screen import progress_console, shows_bars

WAIT = 1800.0
"""Seconds to wait for another process that downloads the same model."""


def fetch(hub: Hub, name: str, entry: Entry, progress: bool = True) -> Path:
    """Return a folder with all files of a model, each checked against its SHA-256.

    A hub on this machine is used where it is. Otherwise the files are in the cache. One process at a time downloads
    those that are missing or damaged.

    Args:
        hub: that has the model.
        name: of the model.
        entry: of the hub's index.
        progress: show a bar, if standard error is a terminal.

    Raises:
        UserError: a file cannot be had, or the cache cannot be written.
    """
    place = hub.local(name)
    if place is not None:
        for file, wanted in entry.files.items():
            if not _is(place / file, wanted):
                raise UserError(f"{place / file} is missing or not the file that the index names: its SHA-256 differs")
        return place
    folder = cache_folder() / "models" / name / entry.version
    if not missing(folder, entry):
        return folder
    try:
        locks = cache_folder() / "locks"
        for needed in (folder, locks):
            needed.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{name}-{entry.version}", timeout=WAIT):
            _fill(folder, hub, name, entry, progress)
    except Timeout:
        raise UserError(f"another process has been downloading {name} for {WAIT / 60:.0f} minutes") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): "
            "set ZOO_CACHE to a folder that can"
        ) from None
    return folder


def missing(folder: Path, entry: Entry) -> list[str]:
    """Return the files that are not in a folder, or not the right ones."""
    return [file for file, wanted in entry.files.items() if not _is(folder / file, wanted)]


def _is(path: Path, wanted: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == wanted.bytes and sha256(path) == wanted.sha256


def _fill(folder: Path, hub: Hub, name: str, entry: Entry, progress: bool) -> None:
    with _bar(progress) as bar:
        for file in missing(folder, entry):
            wanted = entry.files[file]  # type: ignore[index]
            task = bar.add_task(f"{name}/{file}", total=wanted.bytes)
            part = folder / f"{file}.part"
            download(hub, f"{name}/{file}", wanted, part, partial(_advance, bar, task))
            part.replace(folder / file)


def _advance(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=progress_console(),
        transient=True,
        disable=not (shown and shows_bars()),
    )
