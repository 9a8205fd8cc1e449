"""The page of a leaderboard, from the blocks of a report."""

from collections.abc import Sequence
from functools import partial

from markupsafe import Markup

from zoo.leaderboard.standings import Contender, Row, Standing
from zoo.report.cases import Attack, clean
from zoo.report.cells import command_cell, digest_cell, run_cell
from zoo.report.figures import RunFigures
from zoo.report.latencies import Timing
from zoo.report.page import Block, Page, Section, Text
from zoo.report.sections.sanity import masking_warnings, sanity, verdict_cell
from zoo.report.sections.tradeoff import tradeoff_blocks
from zoo.report.table import Cell, Column, Table, number, percent, text

MILLISECONDS = Column("ms\nbatch 1", "median latency in ONNX Runtime", "low")
ELSEWHERE = Column("ms\nbatch 1", "median latency in ONNX Runtime on the machine of this number below")
"""The same columns for several machines, among which none is the best."""
COLUMNS = (
    Column("model", "links to its card"),
    Column("robust\n%", "the lowest accuracy under any attack at this radius", "high"),
    Column("attack", "the strongest one, under which that was measured"),
    Column("images", "test images under that attack"),
    Column("masking", "whether the checks for masked gradients passed"),
    Column("clean\n%", "accuracy on test images", "high"),
    Column("parameters", "of the deployed network", "low"),
    Column("removed\n%", "share of the dense network's parameters that are removed", "high"),
    MILLISECONDS,
    Column("over\ndense", "latency over that of the dense network", "low"),
    Column("trained\nagainst", "the adversary"),
    Column("trained by", "links to the command that trained it"),
)
READING = (
    "Robust accuracy is the lowest accuracy under any attack, an upper bound on the true one. A weaker attack gives a "
    "higher figure: compare rows with the same attack; < marks an upper bound by a weaker attack than AutoAttack. "
    "Models with masked gradients are not ranked."
)


def compose(models: Sequence[Contender], tables: Sequence[Standing], cards: str) -> Page:
    """Return the page.

    Args:
        models: all of them.
        tables: of models to compare.
        cards: folder of the cards as seen from the page: ``NAME.json`` each.
    """
    sections = [_table_section(table, i, cards) for i, table in enumerate(tables)]
    if left := _unranked(models, tables):
        sections.append(left)
    sections += [sanity([model.figures for model in models]), _origins(models, cards)]
    hubs = ", ".join(dict.fromkeys(model.hub for model in models))
    count = f"{len(models)} models" if len(models) > 1 else models[0].name
    return Page(f"Leaderboard of {count}", f"Robust accuracy, size and latency. Hubs: {hubs}", sections)


def _table_section(table: Standing, i: int, cards: str) -> Section:
    believed = {row.model.name: row.found.accuracy for row in table.rows if not row.doubtful}
    runs = [row.model.figures for row in table.rows]
    conditions = list(dict.fromkeys(run.timing.conditions for run in runs if run.timing))
    columns = [ELSEWHERE if column is MILLISECONDS and len(conditions) > 1 else column for column in COLUMNS]
    blocks: list[Block] = [
        *masking_warnings(runs),
        *([] if i else [Text(READING)]),
        Table(columns, [_row(row, conditions, cards) for row in table.rows]),
    ]
    gain = partial(_believed, believed)
    blocks += tradeoff_blocks(runs, [(f"robust-{i + 1}", f"accuracy under {table.threat_title}", gain)])
    return Section(f"table-{i + 1}", table.title, blocks)


def _believed(accuracies: dict[str, float], run: RunFigures) -> float | None:
    return accuracies.get(run.name)


def _row(row: Row, conditions: Sequence[str], cards: str) -> list[Cell]:
    model, card, timing = row.model, row.model.card, row.model.figures.timing
    accuracy = percent(row.found.accuracy)
    if row.found.attack != "autoattack":
        accuracy = Cell(f"<{accuracy.text}", accuracy.value, is_bound=True)
    return [
        run_cell(model.figures, f"{cards}/{model.name}.json"),
        Cell(accuracy.text, None, "bad") if row.doubtful else accuracy,  # no value: sorted last, never the best
        text(Attack.of(row.found).label.partition(",")[0]),
        number(row.found.n, "{:,}"),
        verdict_cell(card.sanity),
        percent(clean(card)),
        number(card.params, "{:,}"),
        percent(card.compression),
        _milliseconds(timing, conditions),
        number(timing.ratio_to_dense if timing else None, "{:.2f}"),
        text(str(card.training.get("adversary") or "none")),
        Cell(Markup('<a href="#made-{}">command</a>').format(model.name), card.provenance.command),
    ]


def _milliseconds(timing: Timing | None, conditions: Sequence[str]) -> Cell:
    if timing is None or len(conditions) == 1:
        return number(timing.median_ms if timing else None, "{:.2f}")
    return Cell(f"{timing.median_ms:.2f} ({conditions.index(timing.conditions) + 1})", timing.median_ms)


def _unranked(models: Sequence[Contender], tables: Sequence[Standing]) -> Section | None:
    ranked = {row.model.name for table in tables for row in table.rows}
    names = [model.name for model in models if model.name not in ranked]
    if not names:
        return None
    why = "No accuracy was measured at the radius of any, so they are in no table: "
    return Section("unranked", "Not measured", [Text(f"{why}{', '.join(names)}.")])


def _origins(models: Sequence[Contender], cards: str) -> Section:
    columns = [
        *(Column("model", "links to its card"), Column("command"), Column("seed"), Column("commit")),
        *(Column("weights", "their SHA-256"), Column("licence"), Column("hub")),
    ]
    rows = []
    for model in models:
        card, made = model.card, model.card.provenance
        rows.append(
            [
                run_cell(model.figures, f"{cards}/{model.name}.json"),
                *(command_cell(made.command, f"made-{model.name}"), number(made.seed, "{}")),
                *(digest_cell((made.commit or "–")[:12]), digest_cell(card.weights.sha256[:12])),
                *(text(card.licence or "–"), text(model.hub)),
            ]
        )
    again = Text("zoo verify NAME --n all measures a card again, zoo bench NAME its latency.")
    return Section("made", "Training commands", [again, Table(columns, rows)])
