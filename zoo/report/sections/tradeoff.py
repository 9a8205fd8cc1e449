"""Accuracy against size and against latency, with the Pareto front."""

from collections.abc import Callable, Sequence

from zoo.report.cases import Key, accuracies, clean, key_text, reference
from zoo.report.chart import Axis, Chart, Point, Series
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Gallery, Section, Text
from zoo.report.pareto import pareto_front, steps
from zoo.report.scale import Scale
from zoo.report.size_curve import size_curve_blocks

Cost = Callable[[RunFigures], float | None]
Gain = tuple[str, str, Cost]
"""An accuracy: its name in files, its name on the page, and its value for a run."""


def tradeoff(runs: Sequence[RunFigures]) -> Section:
    """Return a chart for each pair of an accuracy (clean, under attack in each norm) and a cost (size, latency)."""
    gains: list[Gain] = [("clean", "clean accuracy", lambda run: clean(run.card))]
    for norm in ("Linf", "L2"):
        key = reference(runs, norm)
        if key is not None:
            gains.append((norm.lower(), f"accuracy under {key_text(key)}", _under(key)))
    blocks = [*tradeoff_blocks(runs, gains), *size_curve_blocks(runs)]
    return Section("tradeoff", "Accuracy against size and latency", blocks)


def tradeoff_blocks(runs: Sequence[RunFigures], gains: Sequence[Gain]) -> list[Block]:
    """Return a chart for each accuracy against size and against latency on each machine, and how to read them."""
    costs: list[tuple[str, str, Cost]] = [("parameters", "parameters", lambda run: run.card.params)]
    conditions = list(dict.fromkeys(run.timing.conditions for run in runs if run.timing))
    for i, condition in enumerate(conditions):
        costs.append(
            (
                f"latency{i + 1 if i else ''}",
                f"milliseconds, batch 1{f' ({i + 1})' if len(conditions) > 1 else ''}",
                _latency(condition),
            )
        )
    charts = [
        _chart(runs, f"{gain_name}-{cost_name}", gain_text, cost_text, gain, cost)
        for cost_name, cost_text, cost in costs
        for gain_name, gain_text, gain in gains
    ]
    blocks: list[Block] = [
        Text(
            "Higher and further left is better. The dotted line is the Pareto front: for a run below it, another is at "
            "least as good in both respects."
        )
    ]
    if not conditions:
        blocks.append(Text("Latency was not measured: zoo bench RUN measures it."))
    else:
        numbered = [f"({i + 1}) {x}" if len(conditions) > 1 else x for i, x in enumerate(conditions)]
        blocks.append(Text(f"Latency is the median in ONNX Runtime: {'; '.join(numbered)}."))
    blocks.append(Gallery(charts))
    return blocks


def _under(key: Key) -> Cost:
    return lambda run: accuracies(run.card)[key].accuracy if key in accuracies(run.card) else None


def _latency(condition: str) -> Cost:
    return lambda run: run.timing.median_ms if run.timing and run.timing.conditions == condition else None


def _chart(runs: Sequence[RunFigures], name: str, gain_text: str, cost_text: str, gain: Cost, cost: Cost) -> Chart:
    points: dict[str, Point] = {}
    for run in runs:
        x, y = cost(run), gain(run)
        if x is not None and y is not None:
            points[run.name] = (x, y)
    values = [x for x, _ in points.values()]
    x_axis = Axis(cost_text, log=bool(values) and max(values) > 4 * min(values))
    front = steps(pareto_front(list(points.values())), Scale.of(x_axis, values).high)
    missing = [run.name for run in runs if run.name not in points]
    return Chart(
        name,
        f"{gain_text[0].upper()}{gain_text[1:]} against {cost_text}",
        x_axis,
        Axis("", percent=True),
        (
            Series("Pareto front", tuple(front), kind="front"),
            *(Series(run.name, (points[run.name],), run.style, "points") for run in runs if run.name in points),
        ),
        note=f"Not shown: {', '.join(missing)}." if missing else "",
    )
