"""The folder of a run: checked, created, and removed if the run fails before its first checkpoint."""

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from zoo.errors import UserError
from zoo.files import atomic
from zoo.hub.names import is_path
from zoo.runs.config import TrainConfig
from zoo.runs.run import BEST, CARD, CHECKPOINT, CONFIG, LAYERS, METRICS, WEIGHTS
from zoo.training.parts import Parts


def refuse_occupied(folder: Path, overwrite: bool) -> None:
    """Check that a new run's folder is free.

    Raises:
        UserError: it is not, and may not be overwritten.
    """
    if overwrite or _is_free(folder):
        return
    if (folder / CARD).is_file():
        raise UserError(f"{folder} holds a finished run: replace it with --overwrite true, or choose another --out")
    if (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} holds an interrupted run: continue it with --resume {folder}, replace it with "
            "--overwrite true, or choose another --out"
        )
    raise UserError(f"{folder} is not empty, and no run: choose another --out")


def _is_free(folder: Path) -> bool:
    return not folder.exists() or not any(folder.iterdir())


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove a folder that was free, if a `UserError` ends what is inside before the first checkpoint.

    There is then nothing to resume: it would fail in the same way.
    """
    was_free, new_parents = _is_free(folder), [parent for parent in folder.parents if not parent.exists()]
    try:
        yield
    except UserError:
        if was_free and not (folder / CHECKPOINT).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in new_parents:
                if parent.exists() and _is_free(parent):
                    parent.rmdir()
        raise


def prepare(folder: Path, config: TrainConfig, parts: Parts, command: str | None = None) -> None:
    """Create the folder, remove an older run's files, and write the configuration below the command line.

    Args:
        folder: of the run.
        config, parts: the recipe.
        command: that trains it; None: the command line of this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CARD, WEIGHTS, CHECKPOINT, BEST, METRICS, LAYERS):
        (folder / name).unlink(missing_ok=True)
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(f"# {command or own_command()}\n{configuration(config, parts)}", encoding="utf-8")


def configuration(config: TrainConfig, parts: Parts) -> str:
    """Return a recipe as YAML, as ``zoo train --config`` takes it from any folder."""
    config = dataclasses.replace(config, data_dir=config.data_dir and config.data_dir.absolute())
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    plain |= {key: _absolute(plain[key]) for key in ("weights", "init", "teacher")}
    plain |= parts.named()
    return yaml.safe_dump(plain, sort_keys=False)


def _absolute(source: str | None) -> str | None:
    """Return a path as an absolute one; the name of a published model does not change."""
    return str(Path(source).absolute()) if source is not None and is_path(source) else source


def own_command() -> str:
    """Return the command line of this process, in one line."""
    return " ".join(shlex.join(["zoo", *sys.argv[1:]]).splitlines())


def started_by(folder: Path) -> str:
    """Return the command line that started a run: the one that resumed it does not describe the training."""
    first = (folder / CONFIG).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# zoo ") else own_command()
