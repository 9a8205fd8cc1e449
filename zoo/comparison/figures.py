"""The figures of one contender over its seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from zoo.attacks import format_eps
from zoo.runs.card import Card


@dataclass(frozen=True)
class Figures:
    """All figures of one contender in a comparison.

    Attributes:
        name: of the contender.
        values: by the name of a row, one value per seed.
        curves: under PGD, by norm: (eps, mean accuracy), ascending from clean; of the PGD with the most steps.
        doubts: why its seeds' accuracies are not credible, if they are not (`zoo.runs.card.Card.doubts`).
    """

    name: str
    values: dict[str, list[float]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def mean(self, row: str) -> float:
        """Return the mean over the seeds."""
        return statistics.mean(self.values[row])

    def deviation(self, row: str) -> float | None:
        """Return the standard deviation over the seeds (n - 1), or None for a single one."""
        return statistics.stdev(self.values[row]) if len(self.values[row]) > 1 else None


def summarise(name: str, cards: Sequence[Card], latency_ms: float | None = None) -> Figures:
    """Collect the figures of a contender's runs; rows that are not available for every seed are left out.

    Args:
        name: of the contender.
        cards: one per seed.
        latency_ms: of its first run, exported.
    """
    found = [_figures(card) for card in cards]
    rows = [row for row in found[0] if all(row in values for values in found)]
    values = {row: [figures[row] for figures in found] for row in rows}
    if latency_ms is not None:
        values["ms, batch 1"] = [latency_ms]
    doubts = dict.fromkeys(doubt.reason for card in cards for doubt in card.doubts)
    return Figures(name, values, _curves(cards), tuple(doubts))


def _figures(card: Card) -> dict[str, float]:
    figures: dict[str, float] = {"parameters": card.params, "MACs": card.macs}
    for e in card.evaluations:
        options = "".join(f" {key}={value}" for key, value in e.options.items() if key == "steps")
        figures[" ".join(filter(None, (e.attack, e.norm, format_eps(e.eps) if e.norm else ""))) + options] = e.accuracy
    for finding in card.findings:
        if finding.probe == "weights" and finding.accuracy is not None:
            case = " ".join(x if isinstance(x, str) else format_eps(x) for x in finding.case.values())
            figures[f"weights {case}"] = finding.accuracy
    if card.max_condition_number is not None:
        figures["largest condition number"] = card.max_condition_number
    if "seconds" in card.training:
        figures["training, minutes"] = card.training["seconds"] / 60
    return figures


def _curves(cards: Sequence[Card]) -> dict[str, list[tuple[float, float]]]:
    """Return accuracy over eps in each norm, for the PGD attacks that every seed was evaluated with."""
    found = [_strongest_pgd(card) for card in cards]
    shared = [key for key in found[0] if all(key in accuracies for accuracies in found)]
    curves: dict[str, list[tuple[float, float]]] = {}
    for norm, eps in sorted(shared, key=lambda key: key[1]):
        clean = statistics.mean(e.accuracy for card in cards for e in card.evaluations if e.attack == "clean")
        mean = statistics.mean(accuracies[norm, eps] for accuracies in found)
        curves.setdefault(norm, [(0.0, clean)]).append((eps, mean))
    return curves


def _strongest_pgd(card: Card) -> dict[tuple[str, float], float]:
    """Return the accuracy by norm and eps, each under the PGD with the most steps."""
    attacks = sorted((e for e in card.evaluations if e.attack == "pgd"), key=lambda e: e.options.get("steps", 0))
    return {(e.norm, e.eps): e.accuracy for e in attacks if e.norm is not None}
