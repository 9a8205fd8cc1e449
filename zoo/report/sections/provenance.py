"""The provenance of every run."""

from collections.abc import Sequence

from zoo.report.cells import command_cell, digest_cell, run_cell
from zoo.report.figures import RunFigures
from zoo.report.page import Section
from zoo.report.table import Column, Table, number, text


def provenance(runs: Sequence[RunFigures]) -> Section:
    """Return how each run was trained, with its versions and hardware."""
    columns = [
        *(Column("run"), Column("command"), Column("epochs")),
        *(Column("minutes", "of training, evaluation not included"), Column("precision")),
        *(Column("seed"), Column("hardware"), Column("versions"), Column("commit"), Column("weights")),
    ]
    rows = []
    for run in runs:
        training, origin = run.card.training, run.card.provenance
        seconds = training.get("seconds", training.get("seconds_last_session"))  # the form of older cards
        versions = ", ".join(f"{k} {origin.versions[k]}" for k in ("zoo", "torch", "timm") if k in origin.versions)
        rows.append(
            [
                run_cell(run),
                command_cell(origin.command),
                number(training.get("epochs"), "{}"),
                number(seconds / 60 if isinstance(seconds, float | int) else None, "{:.1f}"),
                *(text(str(training.get("precision", "–"))), number(origin.seed, "{}"), text(origin.hardware)),
                *(text(versions), digest_cell((origin.commit or "–")[:12]), digest_cell(run.card.weights.sha256[:12])),
            ]
        )
    return Section("provenance", "Provenance", [Table(columns, rows)])
