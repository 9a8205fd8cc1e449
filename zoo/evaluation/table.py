"""The measurements on a network, printed as tables."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zoo.attacks import format_eps
from zoo.runs.card import Card
from zoo.runs.detection import Detection
from zoo.runs.records import CurvePoint, Evaluation, Finding
from zoo.screen import NARROW, compacted


def print_card(card: Card, *, no_bound_for: str = "", console: Console | None = None) -> None:
    """Print a card's accuracies as a table, then its size, largest condition number and Lipschitz bound.

    Args:
        card: of a trained network.
        no_bound_for: the operations without a Lipschitz bound, if known.
        console: to print on; None: standard output.
    """
    console = console or Console(highlight=False)
    console.print(f"[bold]{card.arch}[/] {card.method} on {card.data}")
    console.print(compacted(_table(card.evaluations), console))
    if note := card.held_out:
        console.print(f"measured on {note}\n", markup=False)
    for doubt in card.doubts:
        console.print(f"[bold red]{doubt.reason}[/]: {doubt.consequence}\n")
    bound = "none" if card.lipschitz_bound is None else f"{card.lipschitz_bound:.3g}"
    facts = {
        "parameters": f"{card.params:,}, {card.compression:.1%} fewer than {card.dense_params:,}",
        **_fine_tuning(card),
        "multiply-accumulates": f"{card.macs:,}, dense {card.dense_macs:,}",
        "largest condition number": _worst(card),
        **_confidence(card),
        "Lipschitz bound": f"{bound}: no finite one is known for {no_bound_for}" if no_bound_for else bound,
    }
    if console.width < NARROW:
        for name, fact in facts.items():
            console.print(f"{name}: {fact}")
        return
    grid = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        grid.add_row(name, fact)
    console.print(grid)


def _fine_tuning(card: Card) -> dict[str, str]:
    """Return how many numbers of a start were trained, if they are fewer than the network has."""
    trained, start = card.training.get("trained_numbers"), card.training.get("start")
    if start is None or trained is None or trained >= card.params:
        return {}
    return {"numbers trained": f"{trained:,}, starting from {start['name']}; the file has {card.weights.bytes:,} bytes"}


def _confidence(card: Card) -> dict[str, str]:
    if card.calibration is None:
        return {}
    sure = dict(card.calibration.coverage).get(0.5)
    half = f", accuracy on the most confident half {sure:.2%}" if sure is not None else ""
    return {"calibration error": f"{card.calibration.ece:.2%}{half}"}


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the figures of probes: a table each, whose columns are the values of the cases' last key."""
    console = console or Console(highlight=False)
    for name in dict.fromkeys(finding.probe for finding in findings):
        own = [finding for finding in findings if finding.probe == name]
        if own[0].accuracy is None:
            console.print(f"\n[bold]{name}[/] skipped: {escape(own[0].note)}")
        else:
            console.print(f"\n[bold]{name}[/] by {[*own[0].case][-1]}, {own[0].n:,} images")
            console.print(compacted(_pivot(own), console))


def print_detection(found: Sequence[Detection], console: Console | None = None) -> None:
    """Print how well scores tell a network's own images from those of other data sets."""
    if not found:
        return
    console = console or Console(highlight=False)
    table = Table("other images", "score", box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("AUROC", "FPR95", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        counts = f"{one.n:,} + {one.n_other:,}"
        table.add_row(escape(one.data), one.score, f"{one.auroc:.2%}", f"{one.fpr95:.2%}", counts)
    console.print("\n[bold]out-of-distribution detection[/]")
    console.print(compacted(table, console))


def print_points(points: Sequence[CurvePoint], console: Console | None = None) -> None:
    """Print the networks inside a nested run as a table: a row each, their size, accuracies and time.

    Args:
        points: measured with the same attacks.
        console: to print on; None: standard output.
    """
    console = console or Console(highlight=False)
    timed = any(point.latency_ms is not None for point in points)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    attacks = [f"{e.attack} {format_eps(e.eps)}" if e.norm else e.attack for e in points[0].evaluations]
    for column in ("removed", "parameters", "million MACs", *attacks, *(["ms"] if timed else [])):
        table.add_column(column, justify="right")
    for point in points:
        size = (f"{point.compression:g}", f"{point.params:,}", f"{point.macs / 1e6:,.1f}")
        time = [f"{point.latency_ms:.2f}"] if point.latency_ms is not None else []
        table.add_row(*size, *(f"{e.accuracy:.2%}" for e in point.evaluations), *time)
    console.print(table)


def _pivot(findings: Sequence[Finding]) -> Table:
    *shared, last = findings[0].case
    values = list(dict.fromkeys(finding.case[last] for finding in findings))
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in shared:
        table.add_column(name, min_width=max(len(_shown(finding.case[name])) for finding in findings))
    for value in values:
        table.add_column(_shown(value), justify="right")
    rows: dict[tuple[str, ...], list[str]] = {}
    for finding in findings:
        key = tuple(_shown(finding.case[name]) for name in shared)
        rows.setdefault(key, []).append(f"{finding.accuracy:.1%}")
    for key, cells in rows.items():
        table.add_row(*key, *cells)
    return table


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else format_eps(value)


def _worst(card: Card) -> str:
    """Return the largest condition number and where it is."""
    measured = [row for row in card.layers if row.condition_number is not None]
    if not measured:
        return "not measured"
    worst = max(measured, key=lambda row: row.condition_number or 0.0)
    return f"{worst.condition_number:.4g} ({worst.name})"


def _table(evaluations: Sequence[Evaluation]) -> Table:
    table = Table("attack", "norm", box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("eps", "accuracy", "images"):
        table.add_column(column, justify="right", no_wrap=True)
    before: object = None
    for e in evaluations:
        group = (e.attack, e.norm, repr(e.options))
        names = ("", "") if group == before else (e.attack, e.norm or "")
        table.add_row(*names, format_eps(e.eps) if e.norm else "", f"{e.accuracy:.2%}", f"{e.n:,}")
        for part, accuracy in e.parts.items():
            table.add_row(f"  {part}", "", "", f"{accuracy:.2%}", "", style="dim")
        for reason in e.skipped.values():
            table.add_row(f"  skipped: {reason}", style="dim")
        before = group
    return table
