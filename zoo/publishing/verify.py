"""Hash and measure a published model again, and report differences from its card."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from torch import nn

from zoo.errors import UserError
from zoo.evaluation import condition_numbers, lipschitz_bound, sanity
from zoo.evaluation.conditioning import BACKBONE
from zoo.export.exporter import ONNX_FILE, export_model
from zoo.export.parity import LIMIT, check_parity
from zoo.hub.index import Summary
from zoo.hub.search import Found
from zoo.lowrank.factorize import weight_layers
from zoo.publishing.measure import SLACK, EvaluationSplit, evaluated, groups, probed, sweep_of, tolerance
from zoo.publishing.network import MeasuredNetwork
from zoo.runs.card import Card
from zoo.runs.file_metadata import Metadata
from zoo.runs.records import Evaluation, Finding, Sanity
from zoo.runs.run import Run
from zoo.runtime.complexity import count_macs, count_params

QUICK_PASSES = 100
"""Model passes per image above which attacks are measured again only if all images are requested."""

UNNAMED = ("card.json", "README.md")
"""Files of a model that its card cannot name: itself, and the page written from it."""


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
        n: test images for the figures under attack, or all images of the card's figures, including those of probes.
            Clean accuracy is always measured on as many as the card's.
        data_dir: where the data set's files are.
        download: fetch them if they are missing.
    """
    try:
        yield from _checks(model, n, data_dir, download)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # for values without meaning
        yield Check("card", "measured by zoo", f"cannot be measured again: {type(error).__name__}: {error}", False)


def _checks(model: Found, n: int | Literal["all"], data_dir: Path | None, download: bool) -> Iterator[Check]:
    try:
        folder = model.folder()
    except UserError as error:
        yield Check("files", "as in the index", str(error), False)
        return
    yield Check("files", "as in the index", f"{len(model.entry.files)} files, SHA-256 equal", True)
    try:
        network = MeasuredNetwork(Run(folder))
        _ = network.deployed
    except UserError as error:
        yield Check("model", "as on the card", str(error), False)
        return
    run = network.run
    yield from _structure(model, run, network.deployed)
    yield from _conditioning(network)
    try:
        split = EvaluationSplit.of(run.card, data_dir, download)
    except UserError as error:
        yield Check("accuracy", "", f"not measured: {error}", None)
    else:
        yield from _accuracies(network, split, n)
        yield from _probes(network, split, n)
    yield _parity(network)
    for t in run.card.latency:
        why = f"not measured: zoo bench {model.name} --n 0"
        yield Check(f"latency, batch {t.batch}", f"{t.median_ms:.2f} ms", why, None)


def _structure(model: Found, run: Run, deployed: nn.Module) -> Iterator[Check]:
    card = run.card
    same = Summary.of(card) == model.entry.summary and card.name == model.name
    yield Check("index", "as on the card", "the same" if same else "other figures or name", same)
    on_card = {f.file: f.sha256 for f in (card.weights, *card.files)}
    in_index = {name: f.sha256 for name, f in model.entry.files.items() if name not in UNNAMED}
    named = on_card == in_index
    yield Check("card's files", "as in the index", "the same" if named else "others", named)
    dense, shape = run.dense_model(), card.image_shape
    for name, stated, found in (
        ("parameters", card.params, count_params(deployed)),
        ("MACs", card.macs, count_macs(deployed, shape)),
        ("parameters of the dense network", card.dense_params, count_params(dense)),
        ("MACs of the dense network", card.dense_macs, count_macs(dense, shape)),
    ):
        yield Check(name, f"{stated:,}", f"{found:,}", stated == found)


def _conditioning(network: MeasuredNetwork) -> Iterator[Check]:
    card = network.card
    numbers = condition_numbers(network.trained)
    if card.layers:
        yield _layers(network.run, numbers)
    if card.max_condition_number is not None:
        largest = max((k for k in numbers.values() if k is not None), default=math.nan)
        yield _near("largest condition number", card.max_condition_number, largest)
    if card.lipschitz_bound is not None:
        bound = lipschitz_bound(network.deployed, card.image_shape).value
        yield _near("Lipschitz bound", card.lipschitz_bound, math.nan if bound is None else bound)


def _layers(run: Run, numbers: dict[str, float | None]) -> Check:
    """Compare the card's row of each layer: its shape, its rank and its condition number."""
    shapes = {layer.name.removeprefix(BACKBONE): layer.shape for layer in weight_layers(run.dense_model())}
    wrong = [
        row.name
        for row in run.card.layers
        if row.shape != shapes.get(row.name)
        or row.rank not in (None, run.card.ranks.get(row.name))
        or not _close(row.condition_number, numbers.get(row.name))
    ]
    found = f"{len(wrong)} others, such as {wrong[0]}" if wrong else "the same"
    return Check("layers", f"{len(run.card.layers)}, with rank and conditioning", found, not wrong)


def _close(stated: float | None, found: float | None) -> bool:
    if stated is None or found is None:
        return stated is found
    return math.isclose(found, stated, rel_tol=1e-2)


def _near(figure: str, stated: float, found: float) -> Check:
    return Check(figure, f"{stated:.4g}", f"{found:.4g}", _close(stated, found))


def _accuracies(network: MeasuredNetwork, split: EvaluationSplit, n: int | Literal["all"]) -> Iterator[Check]:
    card = network.card
    if card.data_sha256 is not None:
        same = split.sha256 == card.data_sha256
        yield Check("test split", card.data_sha256[:16], split.sha256[:16], same)
    if card.clean is not None:
        yield _compared(card.clean, evaluated(network, [], split.first(card.clean.n))[0])
        if card.sanity is not None:
            yield _sanity(network, card.sanity, split.first(card.clean.n))
    for group in groups(card.evaluations):
        try:
            passes = sweep_of(group).attack.passes(len(card.class_names))
        except UserError as error:
            yield Check(_label(group[0]), f"{group[0].accuracy:.2%}", f"not measured: {error}", None)
            continue
        if n != "all" and passes > QUICK_PASSES:
            why = f"not measured: {passes:,} passes per image; --n all"
            yield Check(_label(group[0]), f"{group[0].accuracy:.2%}", why, None)
            continue
        images = split.first(group[0].n if n == "all" else min(n, group[0].n))
        for stated, found in zip(group, evaluated(network, group, images)[1:], strict=True):
            yield _compared(stated, found)
            if stated.parts and found.n == stated.n:
                yield from _parts(stated, found)


def _compared(stated: Evaluation, found: Evaluation) -> Check:
    agrees = abs(stated.accuracy - found.accuracy) <= tolerance(stated, found.n)
    return Check(_label(stated), f"{stated.accuracy:.2%} of {stated.n}", f"{found.accuracy:.2%} of {found.n}", agrees)


def _parts(stated: Evaluation, found: Evaluation) -> Iterator[Check]:
    """Compare the accuracy after each attack of an ensemble; the whole ensemble is also compared on fewer images."""
    for part, left in stated.parts.items():
        again = found.parts.get(part, math.nan)
        agrees = abs(left - again) <= tolerance(stated, found.n)
        yield Check(f"{_label(stated)} after {part}", f"{left:.2%}", f"{again:.2%}", agrees)


def _sanity(network: MeasuredNetwork, stated: Sanity, images: EvaluationSplit) -> Check:
    """Look for masked gradients again; contradictions between accuracies are checked on the card's own."""
    found = sanity(network.exported, images.images, images.labels, network.card.evaluations)
    shares = ("zero_gradient_share", "accuracy_at_large_eps")
    near = all(abs(getattr(stated, share) - getattr(found, share)) <= SLACK + 2 / found.n for share in shares)
    signs = [(*checked.failures, *checked.uninformative) for checked in (stated, found)]
    words = [
        f"{', '.join(seen) or 'none'}; {checked.zero_gradient_share:.1%} without gradient, "
        f"{checked.accuracy_at_large_eps:.1%} left at eps 0.5"
        for seen, checked in zip(signs, (stated, found), strict=True)
    ]
    return Check("signs of masked gradients", words[0], words[1], signs[0] == signs[1] and near)


def _probes(network: MeasuredNetwork, split: EvaluationSplit, n: int | Literal["all"]) -> Iterator[Check]:
    """Compare each case of each probe."""
    card = network.card
    for name in dict.fromkeys(finding.probe for finding in card.findings):
        stated = [finding for finding in card.findings if finding.probe == name]
        if n != "all":
            yield Check(f"probe {name}", f"{len(stated)} figures", "not measured: --n all", None)
            continue
        again = {repr(finding.case): finding for finding in probed(network, split, name)}
        for finding in stated:
            found = again.get(repr(finding.case))
            words = [_share(finding), "no such case" if found is None else _share(found)]
            yield Check(f"{name} {_case(finding)}".strip(), words[0], words[1], _same(finding, found))


def _share(finding: Finding) -> str:
    return "does not apply" if finding.accuracy is None else f"{finding.accuracy:.2%} of {finding.n}"


def _case(finding: Finding) -> str:
    return " ".join(value if isinstance(value, str) else f"{value:.4g}" for value in finding.case.values())


def _same(stated: Finding, found: Finding | None) -> bool:
    if found is None or stated.accuracy is None or found.accuracy is None:
        return found is not None and stated.accuracy == found.accuracy
    return abs(stated.accuracy - found.accuracy) <= SLACK + 2 / found.n


def _label(e: Evaluation) -> str:
    return e.attack if e.norm is None else f"{e.attack} {e.norm} {e.eps:.4g}"


def _parity(network: MeasuredNetwork) -> Check:
    """Compare the stored ONNX file, or a new one, with PyTorch."""
    model, card, file = network.deployed, network.card, network.run.folder / ONNX_FILE
    try:
        found = check_parity(model, file, card.image_shape) if file.is_file() else _exported(model, card)
    except UserError as error:
        return Check("ONNX", "logits equal", str(error), False)
    worst = max(found.values())
    stated = max(card.parity.values(), default=math.nan)
    return Check("ONNX, relative difference", f"{stated:.1e}", f"{worst:.1e}", not stated > LIMIT)


def _exported(model: nn.Module, card: Card) -> dict[int, float]:
    with TemporaryDirectory() as folder:
        return export_model(model, Metadata.of(card), Path(folder) / ONNX_FILE).parity
