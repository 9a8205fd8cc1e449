"""Our results in RobustBench's format: ``model_info/DATA/NORM/NAME.json``.

Croce et al.: RobustBench: a standardized adversarial robustness benchmark, arXiv 2010.09670. Its tables have no place
for other attacks: a file there is a claim about the standard AutoAttack, so models without it get none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.attacks import format_eps
from zoo.errors import UserError
from zoo.files import atomic
from zoo.leaderboard.standings import SAME_EPS
from zoo.runs.card import Card
from zoo.runs.records import Evaluation, Threat

LINF, L2 = Threat(norm="Linf", eps=8 / 255), Threat(norm="L2", eps=0.5)
BENCHMARKS: dict[str, tuple[Threat, ...]] = {"cifar10": (LINF, L2), "cifar100": (LINF,)}
"""RobustBench's threat models, for each of its data sets that zoo has."""
PARTS = {"apgd", "apgd_t", "fab_t", "square"}
"""The parts of the standard AutoAttack."""
LEAST_IMAGES = 1000
"""Fewest test images for an entry; RobustBench's own tables are on all 10,000."""
BY_HAND = ("link", "name", "authors", "additional_data", "venue")
"""Fields that no card has: kept from an earlier file once somebody has filled them in."""


@dataclass(frozen=True)
class Exported:
    """The files written, and the reason for each model without one."""

    files: tuple[Path, ...]
    left_out: dict[str, str]


def write_robustbench(cards: Mapping[str, Card], folder: Path) -> Exported:
    """Write a file for each model and each benchmark under whose conditions it was measured.

    Args:
        cards: by the models' names.
        folder: the ``model_info`` of a RobustBench checkout, or any other.

    Raises:
        UserError: a file to be updated is not a JSON object.
    """
    files: list[Path] = []
    left_out: dict[str, str] = {}
    for name, card in cards.items():
        claims = [(threat, e) for threat in BENCHMARKS.get(card.data, ()) if (e := standard_autoattack(card, threat))]
        if not claims or card.clean is None:
            left_out[name] = _reason(card)
            continue
        for threat, evaluation in claims:
            file = folder / card.data / threat.norm / f"{name}.json"
            info = _with_hand_filled(model_info(name, card, card.clean, evaluation), file)
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
            files.append(file)
    return Exported(tuple(files), left_out)


def standard_autoattack(card: Card, threat: Threat) -> Evaluation | None:
    """Return the standard AutoAttack at a radius: all four parts, one restart, fp32, `LEAST_IMAGES`; None: no."""
    found = [
        e
        for e in card.evaluations
        if e.attack == "autoattack" and same(e, threat)
        if set(e.parts) == PARTS and not e.skipped and e.n >= LEAST_IMAGES
        if {key: value for key, value in e.options.items() if key != "seed"} in ({}, {"restarts": 1})
    ]
    return min(found, key=lambda e: (-e.n, e.accuracy), default=None)


def model_info(name: str, card: Card, clean: Evaluation, found: Evaluation) -> dict[str, Any]:
    """Return RobustBench's record of a model; numbers are percentages in strings, as it has them."""
    how = "" if card.method == "dense" else f" ({card.method}, {card.compression:.0%} of the parameters removed)"
    note = f"AutoAttack by zoo on {found.n:,} test images, clean accuracy on {clean.n:,}."
    note += "".join(f" {doubt.reason.capitalize()}: {doubt.consequence}." for doubt in card.doubts)
    return {
        "link": "",
        "name": name,
        "authors": "",
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": card.data,
        "venue": "",
        "architecture": card.arch + how,
        "eps": format_eps(found.eps),
        "clean_acc": _percentage(clean),
        "reported": _percentage(found),
        "autoattack_acc": _percentage(found),
        "footnote": note,
        "unreliable": bool(card.doubts),
    }


def _percentage(e: Evaluation) -> str:
    return str(round(100 * e.accuracy, 2))


def _with_hand_filled(info: dict[str, Any], file: Path) -> dict[str, Any]:
    if not file.is_file():
        return info
    try:
        old = json.loads(file.read_text(encoding="utf-8"))
        return info | {key: old[key] for key in BY_HAND if old.get(key) not in (None, "")}
    except (ValueError, RecursionError, AttributeError):
        raise UserError(f"{file} is not a JSON object: repair it, or remove it to have it written again") from None


def _reason(card: Card) -> str:
    if card.data not in BENCHMARKS:
        return f"RobustBench has no {card.data}"
    if card.clean is None:
        return "its clean accuracy was not measured"
    radii = " or ".join(f"{threat.norm} {format_eps(threat.eps)}" for threat in BENCHMARKS[card.data])
    words = f"no whole standard AutoAttack in fp32 at {radii} on {LEAST_IMAGES:,} images or more"
    near = [e for t in BENCHMARKS[card.data] for e in card.evaluations if e.attack == "autoattack" and same(e, t)]
    if not near:
        return words
    e = max(near, key=lambda e: e.n)
    how = ", ".join(f"{key} {value}" for key, value in e.options.items() if key != "seed")
    return f"{words}; its own has {', '.join(e.parts) or 'no parts'} on {e.n:,} images" + (f", {how}" if how else "")


def same(e: Evaluation, threat: Threat) -> bool:
    """Whether an evaluation was made at a radius."""
    return e.norm == threat.norm and abs(e.eps - threat.eps) <= SAME_EPS
