"""Tables of comparable models: those of one data set under one threat model, each with its lowest accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.attacks import format_eps
from zoo.hub.search import BUNDLED, Found
from zoo.report.cases import Attack
from zoo.report.chart import COLORS, MARKERS, Style
from zoo.report.figures import RunFigures
from zoo.report.latencies import Timing
from zoo.runs.card import Card
from zoo.runs.provenance import in_threads
from zoo.runs.records import Evaluation, Threat

SAME_EPS = 1e-6
"""Radii closer than this count as equal."""


@dataclass(frozen=True)
class Contender:
    """A published model.

    Attributes:
        figures: its card and further input of a report's sections.
        file: its card as the hub has it.
        hub: that has it: ``bundled``, or the given address.
    """

    figures: RunFigures
    file: Path
    hub: str

    @property
    def name(self) -> str:
        """The name under which it is downloaded."""
        return self.figures.name

    @property
    def card(self) -> Card:
        """Its card, with all measurements."""
        return self.figures.card


@dataclass(frozen=True)
class Row:
    """A model in a table: its lowest accuracy at the table's radius, and the attack that found it."""

    model: Contender
    found: Evaluation

    @property
    def doubtful(self) -> bool:
        """Whether that accuracy is not credible, so that it has no rank."""
        return bool(self.model.card.doubts)


@dataclass(frozen=True)
class Standing:
    """One table: the models of a data set under a threat model, best first, those without credible figures last."""

    data: str
    threat: Threat
    rows: tuple[Row, ...]

    @property
    def threat_title(self) -> str:
        """The threat model in words."""
        return f"{self.threat.norm} {format_eps(self.threat.eps)}"

    @property
    def title(self) -> str:
        """The data set and the threat model in words."""
        return f"{self.data}, {self.threat_title}"


def gather(models: dict[str, Found], say: Callable[[str], None] = lambda text: None) -> list[Contender]:
    """Read the cards of published models; from a remote hub, only the cards are downloaded.

    Args:
        models: by name, see `zoo.hub.search.published`.
        say: called with a line on each stage.

    Raises:
        UserError: a card is not available, or is damaged.
    """
    files: dict[str, Path] = {}
    for name, found in models.items():
        say(f"reading {name}")
        files[name] = found.card_file()
    cards = {name: Card.load(file) for name, file in files.items()}
    architectures = list(dict.fromkeys(card.arch for card in cards.values()))
    return [
        Contender(
            RunFigures(
                name,
                Style(i % COLORS, architectures.index(card.arch) % len(MARKERS), dashed=(i // COLORS) % 2 == 1),
                card,
                timing=_timing(card),
            ),
            files[name],
            "bundled" if models[name].hub.address == str(BUNDLED) else models[name].hub.address,
        )
        for i, (name, card) in enumerate(cards.items())
    ]


def standings(models: Sequence[Contender]) -> list[Standing]:
    """Return a table for each data set and each threat model of any of its models, with all models measured there.

    Models measured only at other radii are in no table.
    """
    threats: dict[tuple[str, str, float], Threat] = {}
    for model in models:
        threat = model.card.threat_model
        if threat is not None:
            threats.setdefault((model.card.data, threat.norm, round(threat.eps / SAME_EPS)), threat)
    tables = []
    for (data, *_), threat in sorted(threats.items(), key=lambda item: (item[0][0], item[0][1] != "Linf", item[0][2])):
        found = [(model, lowest(model.card, threat)) for model in models if model.card.data == data]
        rows = [Row(model, e) for model, e in found if e is not None]
        if rows:
            rows.sort(key=lambda row: (row.doubtful, -row.found.accuracy, row.model.card.params))
            tables.append(Standing(data, threat, tuple(rows)))
    return tables


def lowest(card: Card, threat: Threat) -> Evaluation | None:
    """Return the lowest accuracy under a threat, among equal ones that of the strongest attack; None: not measured."""
    there = [e for e in card.evaluations if e.norm == threat.norm and abs(e.eps - threat.eps) <= SAME_EPS]
    return min(there, key=lambda e: (e.accuracy, -Attack.of(e).strength, -e.n), default=None)


def _timing(card: Card) -> Timing | None:
    for t in card.latency:
        if t.batch == 1:
            size = sum(file.bytes for file in card.files if file.file.endswith(".onnx"))
            where = f"{t.provider}, {t.hardware}, {in_threads(t.threads)}"
            return Timing(where, t.median_ms, t.p95_ms, t.ratio_to_dense, size)
    return None
