"""Open a run wherever a command takes one: a folder, or the name of a published model."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UserError
from zoo.files import atomic, cache_folder, user_path
from zoo.hub.index import INDEX
from zoo.hub.names import is_path
from zoo.runs.run import CARD, Run

if TYPE_CHECKING:
    from zoo.hub.search import Found

RUNS = Path("runs")


def read_run(target: str | Path, hub: str | Path | None = None) -> Run:
    """Open a run for reading only: a RUN folder, or a published model where it is kept.

    Args:
        target: a folder, or a name.
        hub: addresses of hubs, see `zoo.hub.search.hubs`.

    Raises:
        UserError: it is neither.
    """
    from zoo.hub.search import find

    if is_path(str(target)):
        return Run(Path(target))
    return Run(find(str(target), hub).folder())


def open_run(target: str | Path, hub: str | None = None) -> Run:
    """Open a run that results can be written beside: a RUN folder, or a copy of a published model in ``runs/NAME``.

    Args:
        target: a folder, or a name.
        hub: addresses of hubs, see `zoo.hub.search.hubs`.

    Raises:
        UserError: it is neither, or the folder of a hub or of the cache; or the copy is of another model than the
            requested hubs have.
    """
    from zoo.hub.search import find

    if is_path(str(target)):
        _check_not_published(user_path(target).resolve())
        return Run(Path(target))
    own = RUNS / str(target)
    if not (own / CARD).is_file():
        return Run(copy_model(find(str(target), hub), own))
    run = Run(own)
    if asked := hub or os.environ.get("ZOO_HUB"):
        found = find(str(target), hub)
        if found.entry.files["model.safetensors"].sha256 != run.card.weights.sha256:
            raise UserError(f"{own} already exists, and is another model than that of {asked}: remove it")
    return run


def _check_not_published(folder: Path) -> None:
    """Refuse a folder of a hub or the cache: results written there would change the published model."""
    if (folder.parent / INDEX).is_file() or folder.is_relative_to(cache_folder().resolve()):
        raise UserError(
            f"{folder} is a published model, and what is published stays as it is: give its name, or a copy that "
            "`zoo download NAME --to DIR` makes"
        )


def copy_model(model: "Found", target: Path) -> Path:
    """Copy a model's files, whole or not at all, and return the copy; damaged files of an existing copy are replaced.

    Raises:
        UserError: there is something else already, or there is no space.
    """
    from zoo.hub.cache import missing

    source, entry = model.folder(), model.entry
    try:
        if not target.exists():
            _copy_new(source, list(entry.files), target)
        card = target / CARD
        if not (card.is_file() and card.read_bytes() == (source / CARD).read_bytes()):
            raise UserError(f"{target} already exists, and is another model: remove it or choose another folder")
        for file in missing(target, entry):
            with atomic(target / file) as temporary:
                shutil.copyfile(source / file, temporary)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def _copy_new(source: Path, files: Sequence[str], target: Path) -> None:
    """Copy files into a folder that appears once it is complete, and never replaces another folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        for file in files:
            shutil.copyfile(source / file, staging / file)
        staging.chmod(0o755)
        try:
            staging.rename(target)
        except OSError:
            if not (target / CARD).is_file():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
