"""Checks of the credibility of accuracies under attack."""

from collections.abc import Sequence

from zoo.report.cases import Attack, key_text
from zoo.report.cells import run_cell
from zoo.report.figures import RunFigures
from zoo.report.page import Block, Section, Text
from zoo.report.table import Cell, Column, Table, number, percent, text
from zoo.runs.records import Sanity

CHECKS = {
    "random_outputs": ("deterministic\noutputs", "two forward passes on the same images agree"),
    "zero_gradients": ("nonzero\ngradients", "the loss has a gradient for at least nine images of ten"),
    "survives_large_eps": (
        "guesses at\neps 0.5",
        "at a radius where nothing can be recognized, accuracy is that of guessing",
    ),
    "not_monotone": ("monotone", "accuracy is no higher at a larger radius or under a stronger attack"),
    "black_box_stronger": (
        "black box\nnot stronger",
        "Square, a black-box attack, breaks no more images than the gradient attacks",
    ),
    "differs_at_eps_0": ("clean\nat eps 0", "accuracy at radius 0 is the clean accuracy"),
}


def sanity(runs: Sequence[RunFigures]) -> Section:
    """Return a table of checks, and the accuracy after each part of an ensemble of attacks."""
    columns = [
        Column("run"),
        Column("verdict"),
        *(Column(title, note) for title, note in CHECKS.values()),
        Column("zero gradient\n%", "share of the images whose loss has no gradient"),
        Column("PGD,\neps 0.5, %", "accuracy under PGD at a radius where nothing can be recognized"),
        Column("images"),
    ]
    blocks: list[Block] = [
        Text(
            "Masked gradients make accuracy under attack look higher than it is. Each check looks for one sign of "
            "them; a run that fails any of them is flagged."
        ),
        Table(columns, [_row(run) for run in runs]),
    ]
    parts = _parts(runs)
    if parts.rows:
        blocks.append(parts)
    return Section("sanity", "Sanity checks", blocks)


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
    """Return the verdict of the checks."""
    if checked is None:
        return text("not checked")
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
    columns = [Column("run"), Column("attack"), Column("after"), Column("accuracy, %"), Column("skipped")]
    return Table(columns, rows, "accuracy after each part of an ensemble of attacks")
