"""Write the files of a sweep: the page, its figures, and the best recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._version import __version__
from zoo.files import atomic
from zoo.report.page import render
from zoo.runs.config import TrainConfig
from zoo.training.folder import configuration
from zoo.training.parts import Parts
from zoo.tuning.figures import SweepFigures, gather
from zoo.tuning.page import compose

if TYPE_CHECKING:
    from optuna.study import Study

PAGE, DATA, BEST = "sweep.html", "sweep.json", "best.yaml"
SCHEMA = 1
"""Version of the JSON file's schema."""


def write_sweep(
    study: Study,
    plan: dict[str, Any],
    folder: Path,
    recipe: Callable[[dict[str, str]], tuple[TrainConfig, dict[str, Any]]],
) -> None:
    """Write ``sweep.html``, ``sweep.json`` and, once a trial can be believed, ``best.yaml``.

    Args:
        study: with the trials.
        plan: see `zoo.tuning.sweep.Plan.identity`.
        folder: of the sweep; each file is replaced whole.
        recipe: returns the recipe of a trial's values.
    """
    figures = gather(study, plan)
    with atomic(folder / DATA) as temporary:
        data = json.dumps(_data(figures, study.user_attrs["id"]), indent=1, allow_nan=False)
        temporary.write_text(f"{data}\n", encoding="utf-8")
    with atomic(folder / PAGE) as temporary:
        temporary.write_text(render(compose(figures)), encoding="utf-8")
    if best := figures.best:
        config, plugins = recipe(best.values)
        reached = ", ".join(f"{key} {value:.6g}" for key, value in best.figures.items())
        with atomic(folder / BEST) as temporary:
            temporary.write_text(
                f"# {best.name} of a sweep: {reached}\n{configuration(config, Parts(*plugins.values()))}",
                encoding="utf-8",
            )


def _data(figures: SweepFigures, identity: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA,
        "zoo": __version__,
        "id": identity,
        "plan": figures.plan,
        "best": figures.best.name if figures.best else None,
        "front": [trial.name for trial in figures.front],
        "importances": figures.importances,
        "trials": [
            {
                "name": trial.name,
                "state": trial.state,
                "values": trial.values,
                "figures": trial.figures,
                "doubtful": trial.doubtful,
                "note": trial.note,
            }
            for trial in figures.trials
        ],
    }
