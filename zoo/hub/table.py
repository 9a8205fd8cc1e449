"""Published models and what was found on them, on the screen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from zoo.attacks import format_eps
from zoo.card import Threat
from zoo.hub.index import Summary
from zoo.hub.search import Found

if TYPE_CHECKING:
    from zoo.hub.verify import Check

SIGNS = {True: "[green]ok[/]", False: "[bold red]differs[/]", None: "[dim]-[/]"}


def models_table(models: dict[str, Found], threat: Threat | None = None) -> Table:
    """Lay models out, one per line; robust accuracy is that at the threat, or at each model's own."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1))
    table.add_column("model", overflow="fold", min_width=20)
    table.add_column("data", no_wrap=True)
    for column in ("params", "clean", "robust", "ms", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in models.items():
        s = found.entry.summary
        latency = "-" if s.latency_ms is None else f"{s.latency_ms:.2f}"
        clean = "-" if s.clean is None else f"{s.clean:.1%}"
        size = f"{found.entry.files['model.safetensors'].bytes / 1e6:.2f}"
        table.add_row(name, s.data, short_count(s.params), clean, _robust(s, threat), latency, size)
    return table


def _robust(model: Summary, threat: Threat | None) -> str:
    found = model.robust_at(threat)
    if found is None:
        return "-"
    at = "" if threat else f" at {format_eps(found.eps)}"
    return f"{found.accuracy:.1%}{at}" + (" masked" if model.gradient_masking else "")


def short_count(count: int) -> str:
    """Write a number of parameters in a few characters, such as 2.23M."""
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"


def plain(name: str, found: Found) -> dict[str, Any]:
    """Return what is known of a model as plain data for JSON."""
    sizes = {file: entry.bytes for file, entry in found.entry.files.items()}
    return {"name": name, **found.entry.summary.model_dump(), "bytes": sizes, "hub": found.hub.address}


def checks_table(title: str, checks: "Sequence[Check]") -> Table:
    """Lay the checks of one model out."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("figure", "card", "found", ""):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(check.figure, check.stated, check.found, SIGNS[check.agrees])
    return table
