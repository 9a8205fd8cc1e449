"""The logs of a training: RUN/metrics.csv, and RUN/layers.csv with every layer's rank and condition number."""

import csv
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UserError
from zoo.report.chart import Point
from zoo.runs.run import LAYERS, METRICS


@dataclass(frozen=True)
class LayerState:
    """A factorized layer at the start of training (epoch 0) or after an epoch."""

    epoch: int
    layer: str
    rank: int
    condition_number: float


def metric_curves(folder: Path) -> dict[str, list[Point]]:
    """Return (step, value) of all metrics in RUN/metrics.csv, by name; steps count from 1.

    Raises:
        UserError: the file is damaged.
    """
    curves: dict[str, list[Point]] = {}
    for line, row in _rows(folder / METRICS):
        for name, value in row.items():
            if value and name not in ("step", "epoch"):
                try:
                    curves.setdefault(name, []).append((float(row["step"]) + 1, float(value)))
                except (KeyError, TypeError, ValueError):
                    raise UserError(f"{folder / METRICS}, line {line}: {name} is {value!r}, not a number") from None
    return curves


def layer_states(folder: Path) -> list[LayerState]:
    """Return the factorized layers epoch by epoch; empty for a run without RUN/layers.csv.

    Raises:
        UserError: the file is damaged.
    """
    states = []
    for line, row in _rows(folder / LAYERS):
        try:
            state = LayerState(int(row["epoch"]), row["layer"], int(row["rank"]), float(row["condition_number"]))
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder / LAYERS}, line {line} is damaged: remove the file to continue without it"
            ) from None
        states.append(state)
    return states


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it to continue without it") from None
