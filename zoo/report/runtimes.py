"""The page of a benchmark in several runtimes: Pareto fronts of time against robustness, and every figure."""

from collections.abc import Sequence
from typing import Any

from zoo.attacks import format_eps
from zoo.report.chart import Axis, Chart, Point, Series, Style
from zoo.report.page import Block, Gallery, Page, Section, Text
from zoo.report.pareto import pareto_front, steps
from zoo.report.scale import Scale
from zoo.report.table import Cell, Column, Table, number, percent, text

READING = (
    "Up and to the left is better. The dotted steps are the Pareto front over all runtimes: below them, another is as "
    "good. Adversarial examples are made with the PyTorch model and replayed in each runtime; Square attacks the "
    "runtime itself. Both bound the true robust accuracy from above."
)
COLUMNS = (
    *(Column("network"), Column("runtime"), Column("precision")),
    Column("ms\nbatch 1", "median latency", "low"),
    Column("over\ndense", "latency over that of the dense network in the same runtime", "low"),
    Column("MB", "of the files that the runtime opens", "low"),
    Column("start\nms", "until the first answer; of ONNX Runtime, until the file is open", "low"),
    Column("difference", "of logits from ONNX Runtime's, relative to the largest"),
)


def compose(result: dict[str, Any]) -> Page:
    """Return the page.

    Args:
        result: what `zoo bench` writes as JSON, see `zoo.bench.results.report`.
    """
    rows = result["rows"]
    sections = [_front(rows), _figures(rows), _left_out(result["left_out"]), _conditions(result)]
    count = len({row["name"].rpartition(", ")[0] or row["name"] for row in rows if not row["dense_reference"]})
    runtimes = ", ".join(result["runtimes"])
    return Page(f"{count} files in {len(result['runtimes'])} runtimes", runtimes, [x for x in sections if x])


def _front(rows: Sequence[dict[str, Any]]) -> Section:
    charts = [
        chart
        for data in dict.fromkeys(row["data"] for row in rows)
        for key in _keys([row for row in rows if row["data"] == data])
        if (chart := _chart([row for row in rows if row["data"] == data], data, key)) is not None
    ]
    blocks: list[Block] = [Text(READING), Gallery(charts)] if charts else [Text("No accuracy was measured.")]
    return Section("front", "Robust accuracy against time", blocks)


def _chart(rows: Sequence[dict[str, Any]], data: str, key: str) -> Chart | None:
    points: dict[str, list[Point]] = {}
    for row in rows:
        found = {_key(x): x["accuracy"] for x in row["accuracies"]}
        if key in found:
            points.setdefault(row["runtime"], []).append((_latency(row)["median_ms"], found[key]))
    if not points:
        return None
    every = [point for each in points.values() for point in each]
    axis = Axis("milliseconds, batch 1", log=max(every)[0] > 4 * min(every)[0])
    front = steps(pareto_front(every), Scale.of(axis, [x for x, _ in every]).high)
    series = [
        Series(name, tuple(sorted(found)), Style(i, i % 5), "points") for i, (name, found) in enumerate(points.items())
    ]
    name = "".join(c if c.isalnum() else "-" for c in f"{data}-{key}")
    return Chart(
        name,
        f"{data}: {key}",
        axis,
        Axis("", percent=True),
        (Series("Pareto front", tuple(front), kind="front"), *series),
    )


def _figures(rows: Sequence[dict[str, Any]]) -> Section:
    keys = _keys(rows)
    largest = max(x["batch"] for row in rows for x in row["latency"]) if rows else 1
    columns = [
        *COLUMNS,
        Column(f"images/s\nbatch {largest}", "throughput", "high"),
        Column(f"memory\nMB, batch {largest}", "peak of the process and its children", "low"),
        *(Column(f"{key}\n%", "accuracy", "high") for key in keys),
    ]
    return Section("figures", "Every figure", [Table(columns, [_row(row, keys, largest) for row in rows])])


def _row(row: dict[str, Any], keys: Sequence[str], largest: int) -> list[Cell]:
    latency, bulk = _latency(row), _latency(row, largest)
    found = {_key(x): x["accuracy"] for x in row["accuracies"]}
    return [
        *(text(row["name"].removesuffix(f", {row['runtime']}")), text(row["runtime"]), text(row["precision"])),
        number(latency["median_ms"], "{:.2f}"),
        number(latency["ratio_to_dense"], "{:.2f}"),
        *(number(row["bytes"] / 1e6, "{:.2f}"), number(row["start_ms"], "{:.0f}"), number(row["parity"], "{:.0e}")),
        number(bulk["images_per_second"], "{:,.0f}"),
        number(bulk["memory_mb"], "{:.0f}"),
        *(percent(found.get(key)) for key in keys),
    ]


def _left_out(left_out: Sequence[dict[str, str]]) -> Section | None:
    if not left_out:
        return None
    rows = [[text(x["name"]), text(x["runtime"]), text(x["reason"])] for x in left_out]
    return Section("left-out", "Left out", [Table([Column("network"), Column("runtime"), Column("reason")], rows)])


def _conditions(result: dict[str, Any]) -> Section:
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    load = result["load_average"]
    busy = f"; the system's load average was {load[0]:.1f}" if load else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["runtimes"].items())
    lines = [
        f"{result['cpu']}, {threads}, {result['rounds']} rounds of {result['seconds_per_round']:g} s in turns{busy}.",
        f"Accuracies on {result['n']} test images. Ratios come from files timed in turns; other load on the machine "
        "makes milliseconds longer.",
        f"{versions}.",
    ]
    return Section("conditions", "Conditions", [Text(line) for line in lines])


def _latency(row: dict[str, Any], batch: int = 1) -> dict[str, Any]:
    return next(x for x in row["latency"] if x["batch"] == batch)


def _keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(_key(x) for row in rows for x in row["accuracies"]))


def _key(accuracy: dict[str, Any]) -> str:
    if accuracy["norm"] is None:
        return accuracy["attack"]
    return f"{accuracy['attack']} {accuracy['norm']} {format_eps(accuracy['eps'])}"
