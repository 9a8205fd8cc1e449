"""The page of a sweep: the Pareto front, the importance of each option, and every trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zoo.report.chart import Axis, Chart, Heatmap, Point, Series, Style
from zoo.report.page import Block, Gallery, Page, Section, Text
from zoo.report.pareto import pareto_front, steps
from zoo.report.scale import Scale
from zoo.report.table import Cell, Column, Table, number, percent, text
from zoo.tuning.figures import FEWEST, SweepFigures, TrialFigures
from zoo.tuning.objectives import LATENCY, is_accuracy

FRONT, OTHER, DOUBTFUL = Style(1), Style(0), Style(None, 3)
UNITS = {LATENCY: "latency, ms at batch 1"}


def compose(figures: SweepFigures) -> Page:
    """Return the page of a sweep, which may still go on."""
    search = ", ".join(f"{key}={values}" for key, values in figures.plan["search"].items())
    sections = [_front(figures), _options(figures), _trials(figures)]
    return Page(f"Sweep for {', '.join(figures.objectives)}", f"{len(figures.trials)} trials of {search}", sections)


def _front(figures: SweepFigures) -> Section:
    states = Counter(trial.state for trial in figures.trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "no trial yet"
    blocks: list[Block] = [
        Text(
            f"{counts}. Accuracies are on validation images, at the radius of the recipe; test images are not used. "
            "The best trial is the one on the Pareto front with the best first objective; best.yaml is its recipe."
        )
    ]
    if doubtful := [trial.name for trial in figures.trials if trial.doubtful]:
        names = ", ".join(doubtful)
        blocks.append(Text(f"Not credible (masked gradients, or nothing learned): {names}.", warning=True))
    first, *others = figures.objectives
    if others:
        blocks.append(Gallery([_pair(figures, first, other) for other in others]))
    else:
        blocks.append(Gallery([_history(figures, first)]))
    return Section("front", "Pareto front" if others else "Trials", blocks)


def _pair(figures: SweepFigures, first: str, other: str) -> Chart:
    groups = _groups(figures)
    values = [trial.figures[other] for group in groups.values() for trial in group]
    axis = _axis(other, log=not is_accuracy(other) and bool(values) and max(values) > 4 * min(values))
    series = [
        Series(name, tuple((t.figures[other], t.figures[first]) for t in group), style, "points")
        for (name, style), group in zip(_STYLES.items(), groups.values(), strict=True)
        if group
    ]
    if is_accuracy(first) and not is_accuracy(other):
        points: list[Point] = [(t.figures[other], t.figures[first]) for t in figures.front]
        line = steps(pareto_front(points), Scale.of(axis, values).high)
        series.insert(0, Series("Pareto front", tuple(line), kind="front"))
    return Chart(f"front-{first}-{other}", f"{first} against {other}", axis, _axis(first), tuple(series))


def _history(figures: SweepFigures, name: str) -> Chart:
    place = {trial.name: float(i) for i, trial in enumerate(figures.trials)}
    series = [
        Series(title, tuple((place[t.name], t.figures[name]) for t in group), style, "points")
        for (title, style), group in zip(_STYLES.items(), _groups(figures).values(), strict=True)
        if group
    ]
    return Chart(f"history-{name}", f"{name} of each trial", Axis("trial", whole=True), _axis(name), tuple(series))


_STYLES = {"on the front": FRONT, "dominated": OTHER, "not credible": DOUBTFUL}


def _groups(figures: SweepFigures) -> dict[str, list[TrialFigures]]:
    """Return the finished trials by the names of `_STYLES`."""
    finished = [trial for trial in figures.trials if trial.figures]
    front = [trial for trial in finished if trial in figures.front]
    doubtful = [trial for trial in finished if trial.doubtful]
    behind = [trial for trial in finished if trial not in front and trial not in doubtful]
    return dict(zip(_STYLES, (front, behind, doubtful), strict=True))


def _axis(name: str, log: bool = False) -> Axis:
    return Axis(UNITS.get(name, name), percent=is_accuracy(name), log=log)


def _options(figures: SweepFigures) -> Section:
    blocks: list[Block] = []
    keys, objectives = list(figures.plan["search"]), tuple(figures.importances)
    if objectives:
        values = tuple(tuple(figures.importances[name].get(key, 0.0) for name in objectives) for key in keys)
        blocks.append(
            Text(
                "The importance of an option is its share in what distinguishes the best trials from the others "
                "(PED-ANOVA, arXiv 2304.10255). With few trials, take it as a hint."
            )
        )
        chart = Heatmap("importances", "Importance of each option", tuple(keys), objectives, values)
        blocks.append(Gallery([chart]))
    else:
        blocks.append(Text(f"Importances are shown from {FEWEST} finished trials on."))
    slices = [_slice(figures, key, name) for name in figures.objectives for key in keys if _is_numeric(figures, key)]
    if slices:
        blocks.append(Gallery(slices))
    return Section("options", "Options", blocks)


def _is_numeric(figures: SweepFigures, key: str) -> bool:
    try:
        return bool([float(t.values[key]) for t in figures.trials if t.figures])
    except ValueError:
        return False


def _slice(figures: SweepFigures, key: str, name: str) -> Chart:
    points = [(float(t.values[key]), t.figures[name]) for t in figures.trials if t.figures and not t.doubtful]
    log = bool(points) and min(points)[0] > 0 and max(points)[0] >= 10 * min(points)[0]
    series = Series(name, tuple(sorted(points)), OTHER, "points")
    return Chart(f"option-{key}-{name}", f"{name} over {key}", Axis(key, log=log), _axis(name), (series,))


def _trials(figures: SweepFigures) -> Section:
    keys = list(figures.plan["search"])
    columns = [
        *(Column("trial", "name of the RUN folder"), Column("state"), *(Column(key) for key in keys)),
        *(Column(_title(name), "", "high" if is_accuracy(name) else "low") for name in figures.objectives),
        Column("note"),
    ]
    rows = [_row(figures, trial, keys) for trial in figures.trials]
    note = "accuracies in %; zoo train --resume RUN continues a trial that was pruned or interrupted"
    return Section("trials", "All trials", [Table(columns, rows, note)])


def _title(name: str) -> str:
    return f"{name}\n%" if is_accuracy(name) else f"{name}\nms" if name == LATENCY else name


def _row(figures: SweepFigures, trial: TrialFigures, keys: Sequence[str]) -> list[Cell]:
    state = "Pareto front" if trial in figures.front and len(figures.objectives) > 1 else trial.state
    state = "best" if trial == figures.best else "doubtful" if trial.doubtful else state
    tone = "good" if trial in figures.front else "bad" if trial.doubtful or trial.state == "failed" else ""
    return [
        text(trial.name),
        Cell(state, state, tone),  # type: ignore[arg-type]
        *(_value(trial.values.get(key)) for key in keys),
        *(_figure(trial, name) for name in figures.objectives),
        text(trial.note),
    ]


def _value(value: str | None) -> Cell:
    if value is None:
        return Cell("–")
    try:
        return number(float(value))
    except ValueError:
        return text(value)


def _figure(trial: TrialFigures, name: str) -> Cell:
    value = trial.figures.get(name)
    if value is not None and trial.doubtful:
        shown = percent(value) if is_accuracy(name) else number(value)
        return Cell(shown.text, None, "bad")  # no value: sorted last, never the best
    return percent(value) if is_accuracy(name) else number(value, "{:,.4g}" if name == LATENCY else "{:,.0f}")
