"""Open a run wherever a command takes one: a folder, or the name of a published model."""

import shutil
import tempfile
from pathlib import Path

from zoo.errors import UserError
from zoo.hub.names import is_path
from zoo.run import CARD, Run

RUNS = Path("runs")


def read_run(target: str | Path, hub: str | None = None) -> Run:
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
        UserError: it is neither.
    """
    from zoo.hub.search import find

    if is_path(str(target)):
        return Run(Path(target))
    own = RUNS / str(target)
    return Run(own) if (own / CARD).is_file() else Run(copy_model(find(str(target), hub).folder(), own))


def copy_model(source: Path, target: Path) -> Path:
    """Copy a model's folder, whole or not at all, and return the copy.

    Raises:
        UserError: there is something else already, or no room.
    """
    if target.exists():
        if (target / CARD).is_file() and (target / CARD).read_bytes() == (source / CARD).read_bytes():
            return target
        raise UserError(f"{target} is there already, and is another model: remove it or choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            for file in source.iterdir():
                if file.is_file():
                    shutil.copyfile(file, staging / file.name)
            staging.chmod(0o755)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from None
    return target
