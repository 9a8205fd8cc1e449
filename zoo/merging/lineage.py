"""Whether runs can be merged: one architecture, one data set, one start."""

from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoints import is_checkpoint
from zoo.errors import UserError
from zoo.files import sha256
from zoo.hub.runs import read_run
from zoo.runs.run import Run, read_config
from zoo.runs.transfer import layers_without_channels


def check_alike(runs: Sequence[Run]) -> None:
    """Check that runs are of one architecture, one data set and whole layers.

    Raises:
        UserError: they are not, or there are fewer than two.
    """
    if len(runs) < 2:
        raise UserError("a merge takes at least two runs: name another one that began as the same network")
    for run in runs:
        if cut := layers_without_channels(run):
            raise UserError(
                f"{run.name} has layers that lost channels, {cut[0]} for one: whole and factorized layers can be merged"
            )
    what = {run.name: (run.card.arch, run.card.stem, run.card.image_shape, run.card.class_names) for run in runs}
    first = runs[0]
    for run in runs[1:]:
        if what[run.name] != what[first.name] or run.card.data != first.card.data:
            alike = [x.name for x in runs if what[x.name] == what[first.name] and x.card.data == first.card.data]
            advice = (
                f"leave it out: {' and '.join(alike)} fit together" if len(alike) > 1 else "merge runs of one start"
            )
            raise UserError(
                f"{run.name} is a {run.card.arch} on {run.card.data} and {first.name} a {first.card.arch} on "
                f"{first.card.data}, so their weights do not mean the same: {advice}, as `zoo train --init` makes them"
            )


def origin(run: Run) -> str:
    """Return the SHA-256 of the weights that a run began as; of the run's own, if it began at random."""
    start = run.card.training.get("start")
    return str(start["sha256"]) if start else run.card.weights.sha256


def apart(runs: Sequence[Run]) -> tuple[Run, Run] | None:
    """Return two runs that did not begin as one network; None if all did, or are that network."""
    for run in runs[1:]:
        if origin(run) != origin(runs[0]):
            return runs[0], run
    return None


def start_of(runs: Sequence[Run], given: str | None) -> str:
    """Return where the network is that runs began as: a RUN, a published name or a checkpoint.

    Args:
        runs: of one start.
        given: where it is now; None: where the runs' configurations say.

    Raises:
        UserError: it is not there, or is another one now.
    """
    wanted = origin(runs[0])
    for run in runs:
        if given is None and run.card.weights.sha256 == wanted:
            return str(run.folder)
    for run in runs:
        if given is not None:
            break
        try:
            config = read_config(run.folder)
        except UserError:
            continue
        given = config.get("init") or config.get("weights")
    if given is None:
        raise UserError(f"{runs[0].name} does not say where the network is that it began as: give --start")
    path = Path(given)
    found = sha256(path) if is_checkpoint(path) and path.is_file() else read_run(given).card.weights.sha256
    if found != wanted:
        raise UserError(f"{given} is not the network that {runs[0].name} began as, its SHA-256 differs: give --start")
    return given
