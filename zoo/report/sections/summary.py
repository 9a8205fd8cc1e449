"""The main figures of every run."""

from collections.abc import Sequence

from zoo.attacks import format_eps
from zoo.report.cases import Key, accuracies, clean, reference
from zoo.report.cells import run_cell
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Section
from zoo.report.sections.sanity import masking_warnings
from zoo.report.table import Cell, Column, Table, number, percent, text


def summary(runs: Sequence[RunFigures]) -> Section:
    """Return one table with a row per run."""
    blocks: list[Block] = [*masking_warnings(runs)]
    keys = [key for key in (reference(runs, "Linf"), reference(runs, "L2")) if key is not None]
    timed, mixed = any(run.timing for run in runs), len({run.card.data for run in runs}) > 1
    columns = [
        *(Column("run"), Column("architecture"), Column("method"), *([Column("data")] if mixed else [])),
        Column("clean\n%", "accuracy on test images", "high"),
        *(Column(f"{key[0].label}\n{format_eps(key[1])}, %", f"accuracy: {key[0].options}", "high") for key in keys),
        Column("parameters", "of the deployed network", "low"),
        Column("removed\n%", "share of the dense network's parameters that are removed", "high"),
        Column("MACs\nmillions", "multiply-accumulates for one image, in millions", "low"),
        *([Column("ms\nbatch 1", "median latency in ONNX Runtime", "low")] if timed else []),
        *([Column("time over\ndense", "latency over that of the dense network", "low")] if timed else []),
        Column("largest\nκ", "largest condition number of a layer's weight", "low"),
    ]
    blocks.append(Table(columns, [_row(run, keys, timed, mixed) for run in runs]))
    return Section("summary", "Summary", blocks)


def _row(run: RunFigures, keys: Sequence[Key], timed: bool, mixed: bool) -> list[Cell]:
    card, found = run.card, accuracies(run.card)
    times = []
    if timed:
        times = [
            number(run.timing.median_ms if run.timing else None, "{:.2f}"),
            number(run.timing.ratio_to_dense if run.timing else None, "{:.2f}"),
        ]
    return [
        run_cell(run),
        *(text(card.arch), text(_method(run)), *([text(card.data)] if mixed else [])),
        percent(clean(card)),
        *(percent(found[key].accuracy if key in found else None) for key in keys),
        number(card.params, "{:,}"),
        percent(card.compression),
        number(card.macs / 1e6, "{:,.1f}"),
        *times,
        number(card.max_condition_number),
    ]


def _method(run: RunFigures) -> str:
    adversary = run.card.training.get("adversary", "none")
    return run.card.method if adversary in ("none", "", None) else f"{run.card.method} + {adversary}"
