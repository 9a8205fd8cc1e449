"""Every layer: its shape, its rank, its conditioning and its form in the exported file."""

import math
from collections.abc import Sequence

from zoo.report.export_forms import LayerForm
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Details, Section, Text
from zoo.report.sections.conditioning import condition
from zoo.report.table import Cell, Column, Table, number, text


def layers(runs: Sequence[RunFigures]) -> Section:
    """Return a table of layers per run."""
    blocks: list[Block] = [
        Details(f"{run.name}: {len(run.card.layers)} layers", [_table(run)]) for run in runs if run.card.layers
    ]
    if not any(run.forms for run in runs):
        blocks.append(Text("No exported file lists the form of each layer: zoo export RUN writes one."))
    return Section("layers", "Layers", blocks)


def _table(run: RunFigures) -> Table:
    columns = [
        *(Column("layer"), Column("kind"), Column("shape"), Column("weights", "of the dense layer")),
        *(Column("rank"), Column("full rank"), Column("note")),
        *(Column("κ before", "condition number at initialisation"), Column("κ after", "after training")),
    ]
    if run.forms:
        columns += [Column("exported as"), Column("reason"), Column("cost of each form", "in the unit of the target")]
    return Table(columns, _rows(run))


def _rows(run: RunFigures) -> list[list[Cell]]:
    rows = []
    for row in run.card.layers:
        spectrum = run.spectra.get(row.name)
        before = condition(spectrum.before) if spectrum and spectrum.before else None
        after = row.condition_number if not spectrum else condition(spectrum.after)
        form = run.forms.get(row.name)
        cells = [
            *(text(row.name), text(row.kind)),
            Cell(" × ".join(map(str, row.shape)), math.prod(row.shape)),
            number(math.prod(row.shape), "{:,}"),
            Cell("dense") if row.rank is None else number(row.rank, "{}"),
            number(min(row.shape[0], math.prod(row.shape[1:])), "{}"),
            *(text(row.note), number(before), number(after)),
        ]
        if run.forms:
            cells += [text(form.form), text(form.reason), text(_costs(form))] if form else [Cell("–")] * 3
        rows.append(cells)
    return rows


def _costs(form: LayerForm) -> str:
    return ", ".join(f"{name}: {cost:.4g}" for name, cost in sorted(form.costs.items(), key=lambda item: item[1]))
