"""The measurements of `zoo bench`, as plain data and as tables."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from zoo.attacks import format_eps
from zoo.bench.in_runtimes import LeftOut
from zoo.export.accuracy import Accuracy
from zoo.latency.measure import Latency, Timing
from zoo.latency.session import provider_name, resolve_device
from zoo.runs import provenance
from zoo.runs.file_metadata import Metadata
from zoo.runtimes import DEFAULT, RUNTIMES
from zoo.screen import NARROW, compacted

if TYPE_CHECKING:
    from zoo.bench.benchmark import Settings


PRECISION = "precision"
PARAMS_TRAINED, MACS_TRAINED = "  parameters as trained", "  MACs as trained"
"""Labels of figures that differ from the graph's if BatchNorm was folded, or layers were merged or padded."""


@dataclass(frozen=True)
class Row:
    """The measurements of one file.

    Attributes:
        timing: latency by batch size, memory and start.
        latency_ratio: time over the dense backbone's, by batch size; empty if there is no such backbone.
        note: why accuracies are missing, or ``""``.
        masking: signs of masked gradients on the model's card: accuracies under attack are not credible.
        runtime: that the file ran in.
        parity: largest difference of its logits there from ONNX Runtime's, relative to the largest; None for that.
    """

    name: str
    file: str
    bytes: int
    metadata: Metadata
    timing: Timing
    latency_ratio: dict[int, float]
    accuracies: tuple[Accuracy, ...] = ()
    note: str = ""
    masking: tuple[str, ...] = ()
    runtime: str = DEFAULT
    parity: float | None = None

    @property
    def is_dense(self) -> bool:
        """Whether this is a baseline: a dense backbone with random weights."""
        return not self.metadata.weights_sha256

    @property
    def latency(self) -> dict[int, Latency]:
        """By batch size."""
        return self.timing.latency

    @property
    def params(self) -> int:
        """Parameters of the graph that was timed, or of the network if the file does not give them."""
        return self.metadata.params if self.metadata.graph_params is None else self.metadata.graph_params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the graph that was timed, or of the network if the file does not give them."""
        return self.metadata.macs if self.metadata.graph_macs is None else self.metadata.graph_macs

    @property
    def theoretical_speedup(self) -> float:
        """How many times fewer multiply-accumulates the graph that was timed has than the dense backbone."""
        return self.metadata.dense_macs / self.macs if self.macs else 1.0

    def achieved_share(self, batch: int) -> float | None:
        """Return the measured speed-up over the theoretical one; None without a dense backbone."""
        ratio = self.latency_ratio.get(batch)
        return None if ratio is None else 1 / ratio / self.theoretical_speedup


def report(rows: list[Row], settings: "Settings", left_out: Sequence[LeftOut] = ()) -> dict[str, Any]:
    """Return rows as plain data for JSON, with the conditions they were measured under, and what could not be run."""
    device = resolve_device(settings.device)
    return {
        "device": device,
        "provider": provider_name(device),
        "cpu": provenance.cpu_name(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None,
        "runtimes": {name: RUNTIMES.get(name)().version() for name in settings.runtimes},
        "threads": settings.threads,
        "rounds": settings.rounds,
        "seconds_per_round": settings.seconds,
        "n": settings.n,
        "seed": settings.seed,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "rows": [_plain(row) for row in rows],
        "left_out": [asdict(x) for x in left_out],
    }


def _plain(row: Row) -> dict[str, Any]:
    kept = ("arch", "method", "data", "image_shape", "params", "macs", "weights_sha256", "target", "precision", "forms")
    return {
        "name": row.name,
        "dense_reference": row.is_dense,
        "runtime": row.runtime,
        "parity": row.parity,
        "file": row.file,
        "bytes": row.bytes,
        **{name: getattr(row.metadata, name) for name in kept},
        "graph_params": row.params,
        "graph_macs": row.macs,
        "start_ms": row.timing.start_ms,
        "theoretical_speedup": row.theoretical_speedup,
        "latency": [
            {
                **asdict(x),
                "ratio_to_dense": row.latency_ratio.get(x.batch),
                "achieved_share_of_theoretical_speedup": row.achieved_share(x.batch),
            }
            for x in row.latency.values()
        ],
        "accuracies": [asdict(x) for x in row.accuracies],
        "gradient_masking": list(row.masking),
        "note": row.note,
    }


def tables(rows: list[Row], settings: "Settings", console: Console) -> list[Table]:
    """Lay the rows out for the screen, in as many tables as its width requires: see `table`."""
    found: list[list[Row]] = []
    endless = console.options.update(max_width=10_000)  # otherwise a measure would end at the screen's width
    for row in rows:
        wider = [*(found[-1] if found else []), row]
        if found and console.measure(table(wider, settings, rows), options=endless).minimum <= console.width:
            found[-1] = wider
        else:
            found.append([row])
    shown = [table(part, settings, rows) for part in found]
    if console.width < NARROW:
        for each in shown:
            each.columns[0].no_wrap, each.columns[0].min_width = False, None
    return [compacted(each, console) for each in shown]


def table(rows: list[Row], settings: "Settings", among: Sequence[Row] = ()) -> Table:
    """Lay rows out for the screen, one column per model; accuracies are those of the ONNX graphs.

    Args:
        rows: to show.
        settings: of the measurements.
        among: all measured rows, if more than are shown: every table of them has the same lines.
    """
    among = among or rows
    device = resolve_device(settings.device)
    others = [name for name in settings.runtimes if name != DEFAULT]
    title = f"ONNX Runtime, {provider_name(device)}" if not others else ", ".join(settings.runtimes)
    if device == "cpu":
        title += f", {provenance.in_threads(settings.threads)}"
    accuracies = list(dict.fromkeys(_name(x) for row in among for x in row.accuracies))
    if accuracies:
        title += f"; accuracy on {max(x.n for row in among for x in row.accuracies):,} test images"
    result = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, header_style="bold")
    memory = "memory, MB" if device == "cpu" else "memory of the host, MB"
    columns = [_figures(row, settings.throughput, memory) for row in rows]
    labels = [label for label in columns[0] if label not in _redundant(among)]
    result.add_column(no_wrap=True, min_width=max(map(len, [*labels, *accuracies])))
    for row, column in zip(rows, columns, strict=True):  # names may be broken, numbers may not
        widest = max(len(column[label]) for label in labels)
        result.add_column(row.name, justify="right", overflow="fold", min_width=widest)
    for label in labels:
        result.add_row(label, *(column[label] for column in columns))
    if any(row.parity is not None for row in among):
        differences = ("-" if row.parity is None else f"{row.parity:.0e}" for row in rows)
        result.add_row("difference from ONNX Runtime", *differences)
    for label in accuracies:
        result.add_row(
            label, *({_name(x): f"{x.accuracy:.2%}" for x in row.accuracies}.get(label, "-") for row in rows)
        )
    if any(row.masking for row in among):
        signs = (", ".join(row.masking).replace("_", " ") or "-" for row in rows)
        result.add_row("gradient masking", *signs, style="bold red")
    return result


def _redundant(rows: Sequence[Row]) -> set[str]:
    """Return the labels that add nothing: the precision if all share it, and network sizes that equal the graphs'."""
    said = {
        PRECISION: any(row.metadata.precision != "fp32" for row in rows),
        PARAMS_TRAINED: any(row.metadata.params != row.params for row in rows),
        MACS_TRAINED: any(row.metadata.macs != row.macs for row in rows),
    }
    return {label for label, says in said.items() if not says}


def _name(accuracy: Accuracy) -> str:
    if accuracy.norm is None:
        return accuracy.attack
    return f"{accuracy.attack} {accuracy.norm} {format_eps(accuracy.eps)}"


def _figures(row: Row, batches: tuple[int, ...], memory: str) -> dict[str, str]:
    """Return a row's cells by label: sizes, then times."""
    single, ratios, share = row.latency[1], row.latency_ratio, row.achieved_share(1)
    cells = {
        PRECISION: row.metadata.precision,
        "parameters": f"{row.params:,}",
        PARAMS_TRAINED: f"{row.metadata.params:,}",
        "MACs": f"{row.macs:,}",
        MACS_TRAINED: f"{row.metadata.macs:,}",
        "file, MB": f"{row.bytes / 1e6:.2f}" if row.bytes else "-",
        "ms, batch 1: median": f"{single.median_ms:.2f}",
        "  95th percentile": f"{single.p95_ms:.2f}",
        "  99th percentile": f"{single.p99_ms:.2f}",
        "  median of dense": f"{ratios[1]:.2f}" if ratios else "-",
        "  of theoretical speed-up": f"{share:.0%}" if share is not None else "-",
    }
    for batch in batches:
        times_dense = f"{1 / ratios[batch]:.2f}" if ratios else "-"
        cells |= {
            f"images/s, batch {batch}": f"{row.latency[batch].images_per_second:,.0f}",
            # Labels are keys: with several batches each needs its own.
            "  speed-up over dense" if len(batches) == 1 else f"  speed-up over dense, batch {batch}": times_dense,
        }
    largest = max(row.latency)
    cells |= {
        f"{memory}, batch {largest}": f"{row.latency[largest].memory_mb:.0f}",
        "session start, ms": f"{row.timing.start_ms:.0f}",
    }
    return cells
