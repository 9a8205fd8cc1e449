"""Write the files of a leaderboard."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zoo._version import __version__
from zoo.errors import UserError
from zoo.files import atomic, sha256, user_path
from zoo.leaderboard.page import compose
from zoo.leaderboard.standings import Contender, Row, Standing, standings
from zoo.report.cases import Attack, clean
from zoo.report.page import render

SCHEMA = 1
"""Version of the JSON file's schema."""


@dataclass(frozen=True)
class Written:
    """The files of a leaderboard: the page, its figures, and the folder of the linked cards."""

    page: Path
    data: Path
    cards: Path
    tables: int


def write_leaderboard(models: Sequence[Contender], output: Path) -> Written:
    """Write the page, ``NAME.json`` beside it, and the linked cards in the folder ``NAME``.

    Args:
        models: see `zoo.leaderboard.gather`.
        output: the page, such as ``leaderboard.html``; older files of the same names are replaced.

    Raises:
        UserError: there is no model, or ``output`` is not named ``*.html``.
    """
    output = user_path(output)
    if output.suffix not in (".html", ".htm") or output.is_dir():
        raise UserError(f"{output} is not a page: give a file name that ends in .html, such as leaderboard.html")
    if not models:
        raise UserError("there is no model to compare: try fewer conditions, or --hub")
    tables = standings(models)
    written = Written(output, output.with_suffix(".json"), output.with_suffix(""), len(tables))
    page = render(compose(models, tables, quote(written.cards.name)))
    for model in models:
        with atomic(written.cards / f"{model.name}.json") as temporary:
            shutil.copyfile(model.file, temporary)
    with atomic(written.data) as temporary:
        temporary.write_text(json.dumps(as_data(models, tables), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return written


def as_data(models: Sequence[Contender], tables: Sequence[Standing]) -> dict[str, Any]:
    """Return every figure of the tables as plain data; accuracies are shares in 0..1."""
    return {
        "schema_version": SCHEMA,
        "zoo": __version__,
        "models": {model.name: _model(model) for model in models},
        "tables": [
            {"data": t.data, "norm": t.threat.norm, "eps": t.threat.eps, "rows": [_row(row) for row in t.rows]}
            for t in tables
        ],
    }


def _model(model: Contender) -> dict[str, Any]:
    card, timing = model.card, model.figures.timing
    return {
        "hub": model.hub,
        "card_sha256": sha256(model.file),
        "weights_sha256": card.weights.sha256,
        "arch": card.arch,
        "method": card.method,
        "adversary": card.training.get("adversary"),
        "data": card.data,
        "clean": clean(card),
        "params": card.params,
        "compression": card.compression,
        "macs": card.macs,
        "latency_ms": timing.median_ms if timing else None,
        "latency_over_dense": timing.ratio_to_dense if timing else None,
        "latency_on": timing.conditions if timing else None,
        "masking": None if card.sanity is None else list(card.sanity.failures),
        "command": card.provenance.command,
        "commands": card.commands,
    }


def _row(row: Row) -> dict[str, Any]:
    found, attack = row.found, Attack.of(row.found)
    return {
        "name": row.model.name,
        "robust": found.accuracy,
        "attack": attack.name,
        "options": found.options,
        "n": found.n,
        "gradient_masking": row.model.card.gradient_masking,
        "uninformative": row.model.card.uninformative,
    }
