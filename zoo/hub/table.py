"""Tables of published models with their figures."""

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from zoo.attacks import format_eps
from zoo.hub.index import Robust, Summary
from zoo.hub.search import Found
from zoo.runs.records import Threat


def models_table(models: dict[str, Found], threat: Threat | None = None) -> Table:
    """Lay models out, one per line; robust accuracy is that at the threat, or at each model's own radius.

    An accuracy under a weaker attack than AutoAttack is marked as an upper bound.
    """
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=0, show_edge=False)
    table.add_column("model", overflow="fold")  # folded if the terminal is narrow, so that no figure loses a digit
    table.add_column("data", overflow="fold")
    for column in ("params", "clean", "robust", *(() if threat else ("eps",)), "ms"):
        table.add_column(column, justify="right", no_wrap=True)
    bounded = False
    for name, found in models.items():
        s = found.entry.summary
        robust = s.robust_at(threat)
        bounded |= robust is not None and robust.attack != "autoattack"
        table.add_row(
            name,
            escape(s.data),
            short_count(s.params),
            "-" if s.clean is None else f"{s.clean:.1%}",
            "-" if robust is None else _robust(robust, s),
            *(() if threat else ("-" if robust is None else _radius(robust),)),
            "-" if s.latency_ms is None else f"{s.latency_ms:.2f}",
        )
    summaries = [found.entry.summary for found in models.values()]
    notes = {
        f"robust: at {_radius(threat) if threat else ''}": threat is not None,
        "< an upper bound, by a weaker attack than AutoAttack": bounded,
        "! gradient masking: not credible under attack": any(s.gradient_masking for s in summaries),
        "? uninformative: answers as if it had learned nothing": any(s.uninformative for s in summaries),
    }
    table.caption = "\n".join(note for note, needed in notes.items() if needed) or None
    return table


def _radius(of: Robust | Threat) -> str:
    return f"{'' if of.norm == 'Linf' else 'L2 '}{format_eps(of.eps)}"


def _robust(found: Robust, of: Summary) -> str:
    marks = f"{'!' if of.gradient_masking else ''}{'?' if of.uninformative else ''}"
    return f"{'' if found.attack == 'autoattack' else '<'}{found.accuracy:.1%}{marks}"


def short_count(count: int) -> str:
    """Write a number of parameters in a few characters, such as 2.23M."""
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"


def plain(name: str, found: Found) -> dict[str, Any]:
    """Return the data of a model as plain values for JSON."""
    sizes = {file: entry.bytes for file, entry in found.entry.files.items()}
    return {"name": name, **found.entry.summary.model_dump(), "bytes": sizes, "hub": found.hub.address}
