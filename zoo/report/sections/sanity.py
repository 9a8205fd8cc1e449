"""Checks of the credibility of accuracies under attack."""

from collections.abc import Sequence

from zoo.report.cases import Attack, key_text
from zoo.report.cells import run_cell
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Section, Text
from zoo.report.table import Cell, Column, Table, number, percent, text
from zoo.runs.records import Sanity

CHECKS = {
    "random_outputs": ("same answers\ntwice", "two forward passes agree"),
    "zero_gradients": ("gradients\nthere", "at most a tenth of the images have no gradient at all"),
    "survives_large_eps": (
        "falls at\neps 0.5",
        "at a radius where nothing can be recognized, accuracy is that of guessing",
    ),
    "not_monotone": ("monotone", "no larger radius and no stronger attack leaves more accuracy"),
    "black_box_stronger": ("Square not\nstronger", "the black-box attack finds no more than the gradient attacks"),
    "differs_at_eps_0": ("clean\nat eps 0", "accuracy at radius 0 is clean accuracy"),
}


def sanity(runs: Sequence[RunFigures]) -> Section:
    """Return a table of checks, and the accuracy after each part of an ensemble of attacks."""
    columns = [
        Column("run"),
        Column("verdict"),
        *(Column(title, note) for title, note in CHECKS.values()),
        Column("no gradient\n%", "share of probed images whose loss has no gradient"),
        Column("at eps 0.5\n%", "accuracy under PGD at a radius where nothing can be recognized"),
        Column("images"),
    ]
    blocks: list[Block] = [
        Text("Signs of masked gradients, each with its own check. A run that fails one is flagged."),
        Table(columns, [_row(run) for run in runs]),
    ]
    parts = _parts(runs)
    if parts.rows:
        blocks.append(parts)
    return Section("sanity", "Can the attacks be believed?", blocks)


def masking_warnings(runs: Sequence[RunFigures]) -> list[Text]:
    """Return a warning for each run that failed a check, or that learned nothing."""
    return [Text(f"{run.name}: {doubt}.", warning=True) for run in runs for doubt in run.card.doubts]


def _row(run: RunFigures) -> list[Cell]:
    checked = run.card.sanity
    if checked is None:
        return [run_cell(run), text("not checked"), *[Cell("–")] * (len(CHECKS) + 3)]
    verdict = verdict_cell(checked)
    return [
        run_cell(run),
        verdict,
        *(_check(checked, name) for name in CHECKS),
        percent(checked.zero_gradient_share),
        percent(checked.accuracy_at_large_eps),
        number(checked.n, "{:,}"),
    ]


def verdict_cell(checked: Sanity | None) -> Cell:
    """Return what the checks came to."""
    if checked is None:
        return text("unchecked")
    bad = ", ".join(doubt.kind for doubt in checked.doubts)
    return Cell(bad, bad, "bad") if bad else Cell("passed", "passed", "good")


def _check(checked: Sanity, name: str) -> Cell:
    return Cell("✗", "failed", "bad") if name in checked.failures else Cell("✓", "passed", "good")


def _parts(runs: Sequence[RunFigures]) -> Table:
    rows = [
        [
            run_cell(run),
            text(key_text((Attack.of(e), e.eps))),
            text(part),
            percent(accuracy),
            text(e.skipped.get(part, "")),
        ]
        for run in runs
        for e in run.card.evaluations
        for part, accuracy in e.parts.items()
    ]
    columns = [Column("run"), Column("attack"), Column("after"), Column("accuracy left, %"), Column("skipped")]
    return Table(columns, rows, "accuracy after each part of an ensemble of attacks")
