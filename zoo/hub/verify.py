"""Hash and measure a published model again, and say where it differs from its card."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from zoo.card import Card, Evaluation
from zoo.cost import count_macs, count_params
from zoo.errors import UserError
from zoo.evaluation import condition_numbers
from zoo.export.exporter import ONNX_FILE, export_model
from zoo.export.metadata import Metadata
from zoo.export.parity import check_parity
from zoo.hub.index import Summary
from zoo.hub.measure import EvaluationSplit, evaluated, groups, sweep_of, tolerance
from zoo.hub.search import Found
from zoo.run import Run

QUICK_PASSES = 100
"""Model passes per image: attacks that need more are measured again only when all images are asked for."""


@dataclass(frozen=True)
class Check:
    """One figure: what the card or the index states, what was found, and whether they agree (None: not measured)."""

    figure: str
    stated: str
    found: str
    agrees: bool | None


def verify(
    model: Found, n: int | Literal["all"] = 200, data_dir: Path | None = None, download: bool = False
) -> Iterator[Check]:
    """Check a model's files, then its card against its weights, one figure after the other.

    Args:
        model: of a hub.
        n: test images for the figures under attack, or all that the card's figures were measured on. Clean accuracy
            is always measured on as many as the card's.
        data_dir: where the data set's files are.
        download: fetch them if they are missing.
    """
    try:
        folder = model.folder()
    except UserError as error:
        yield Check("files", "as in the index", str(error), False)
        return
    yield Check("files", "as in the index", f"{len(model.entry.files)} files, SHA-256 equal", True)
    run = Run(folder)
    yield from _structure(model, run)
    try:
        split = EvaluationSplit.of(run.card, data_dir, download)
    except UserError as error:
        yield Check("accuracy", "", f"not measured: {error}", None)
    else:
        yield from _accuracies(run, split, n)
    yield _parity(run)


def _structure(model: Found, run: Run) -> Iterator[Check]:
    card, deployed = run.card, run.model()
    same = Summary.of(card) == model.entry.summary and card.name == model.name
    yield Check("index", "as on the card", "the same" if same else "other figures or name", same)
    hashes = {f.file: f.sha256 for f in (card.weights, *card.files)}
    named = all(model.entry.files[name].sha256 == value for name, value in hashes.items() if name in model.entry.files)
    yield Check("card's files", "as in the index", "the same" if named else "others", named)
    for name, stated, found in (
        ("parameters", card.params, count_params(deployed)),
        ("MACs", card.macs, count_macs(deployed, card.image_shape)),
    ):
        yield Check(name, f"{stated:,}", f"{found:,}", stated == found)
    if card.max_condition_number is not None:
        numbers = condition_numbers(run.trained_model())
        largest = max((k for k in numbers.values() if k is not None), default=math.nan)
        agrees = math.isclose(largest, card.max_condition_number, rel_tol=1e-2)
        yield Check("largest condition number", f"{card.max_condition_number:.4g}", f"{largest:.4g}", agrees)


def _accuracies(run: Run, split: EvaluationSplit, n: int | Literal["all"]) -> Iterator[Check]:
    card = run.card
    if card.data_sha256 is not None:
        same = split.sha256 == card.data_sha256
        yield Check("test split", card.data_sha256[:16], split.sha256[:16], same)
    if card.clean is not None:
        yield _compared(card.clean, evaluated(run, [], split.first(card.clean.n))[0])
    for group in groups(card.evaluations):
        passes = sweep_of(group).attack.passes(len(card.class_names))
        if n != "all" and passes > QUICK_PASSES:
            why = f"not measured: {passes:,} passes per image; --n all"
            yield Check(_label(group[0]), f"{group[0].accuracy:.2%}", why, None)
            continue
        images = split.first(group[0].n if n == "all" else min(n, group[0].n))
        for stated, found in zip(group, evaluated(run, group, images)[1:], strict=True):
            yield _compared(stated, found)


def _compared(stated: Evaluation, found: Evaluation) -> Check:
    agrees = abs(stated.accuracy - found.accuracy) <= tolerance(stated, found.n)
    return Check(_label(stated), f"{stated.accuracy:.2%} of {stated.n}", f"{found.accuracy:.2%} of {found.n}", agrees)


def _label(e: Evaluation) -> str:
    return e.attack if e.norm is None else f"{e.attack} {e.norm} {e.eps:.4g}"


def _parity(run: Run) -> Check:
    """Compare the stored ONNX file, or a new one, with PyTorch."""
    model, card, file = run.model(), run.card, run.folder / ONNX_FILE
    try:
        found = check_parity(model, file, card.image_shape) if file.is_file() else _exported(run, card)
    except UserError as error:
        return Check("ONNX", "logits equal", str(error), False)
    worst = max(found.values())
    stated = max(card.parity.values(), default=math.nan)
    return Check("ONNX, relative difference", f"{stated:.1e}", f"{worst:.1e}", True)


def _exported(run: Run, card: Card) -> dict[int, float]:
    with TemporaryDirectory() as folder:
        return export_model(run.model(), Metadata.of(card), Path(folder) / ONNX_FILE).parity
