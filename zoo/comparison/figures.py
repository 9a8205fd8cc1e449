"""The figures of one contender over its seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from zoo.attacks import NORMS, format_eps
from zoo.runs.card import Card
from zoo.runs.records import Evaluation

PREFERRED = ("fgsm", "square", "sparse_rs", "sigma_zero", "fab_t", "apgd", "apgd_t", "cr", "autoattack", "pgd")
"""Attacks whose curve is drawn, the last one first: PGD, which most runs were measured with, and then strong ones."""


@dataclass(frozen=True)
class Figures:
    """All figures of one contender in a comparison.

    Attributes:
        name: of the contender.
        values: by the name of a row, one value per seed.
        curves: by norm: (eps, mean accuracy), ascending from clean, under one attack (see `attacks`).
        attacks: the attack of each curve: PGD with the most steps where there is one, otherwise the strongest.
        doubts: why its seeds' accuracies are not credible, if they are not (`zoo.runs.card.Card.doubts`).
    """

    name: str
    values: dict[str, list[float]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    attacks: dict[str, str] = field(default_factory=dict)

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
    curves, attacks = _curves(cards)
    return Figures(name, values, curves, tuple(doubts), attacks)


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


def _curves(cards: Sequence[Card]) -> tuple[dict[str, list[tuple[float, float]]], dict[str, str]]:
    """Return accuracy over eps in each norm, under the attack that every seed was evaluated with, and its name."""
    found = [{norm: _curve(card, norm) for norm in NORMS} for card in cards]
    curves: dict[str, list[tuple[float, float]]] = {}
    attacks: dict[str, str] = {}
    for norm in NORMS:
        names = {attack for own in found for attack in own[norm]}
        shared = [name for name in names if all(name in own[norm] for own in found)]
        if not shared:
            continue
        attack = max(shared, key=_preference)
        accuracies = [own[norm][attack] for own in found]
        radii = [eps for eps in sorted(accuracies[0]) if all(eps in seed for seed in accuracies)]
        if radii:
            clean = statistics.mean(e.accuracy for card in cards for e in card.evaluations if e.attack == "clean")
            curves[norm] = [(0.0, clean), *((eps, statistics.mean(seed[eps] for seed in accuracies)) for eps in radii)]
            attacks[norm] = attack
    return curves, attacks


def _preference(attack: str) -> tuple[int, str]:
    return (PREFERRED.index(attack) if attack in PREFERRED else -1), attack


def _curve(card: Card, norm: str) -> dict[str, dict[float, float]]:
    """Return a card's accuracy by attack and radius in a norm; of one attack, that with the most steps."""
    own = sorted((e for e in card.evaluations if e.norm == norm), key=_steps)
    found: dict[str, dict[float, float]] = {}
    for e in own:
        found.setdefault(e.attack, {})[e.eps] = e.accuracy
    return found


def _steps(e: Evaluation) -> int:
    steps = e.options.get("steps", 0)
    return steps if isinstance(steps, int) else 0
