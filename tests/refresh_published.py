"""Set zoo's models beside published figures in docs/published.md: python tests/refresh_published.py."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from zoo.hub.search import BUNDLED
from zoo.leaderboard.standings import lowest
from zoo.runs.card import Card
from zoo.runs.records import Evaluation, Threat

PAGE = Path(__file__).parents[1] / "docs" / "published.md"
PUBLISHED = PAGE.with_suffix(".yaml")
CARDS = PAGE.parent / "cards"
"""Cards of models that were trained and measured, but are too large for the bundled hub."""
EPS = Threat(norm="Linf", eps=8 / 255)
CURVE = (
    *(Threat(norm="Linf", eps=eps) for eps in (0.002, 0.004, 0.006)),
    *(Threat(norm="L2", eps=e) for e in (0.1, 0.2, 0.3)),
)
REMOVED = {0: 0.0, 50: 42.3, 80: 76.8}
"""Per cent of VGG16's weights that go with this per cent of its ranks, by the rule of the CondLR paper's code."""
NETWORKS = {
    "resnet18": "ResNet-18",
    "vgg16_bn": "VGG16",
    "mobilenetv2_100": "MobileNetV2",
    "vit_tiny_patch16_224": "ViT-Tiny",
}

Row = tuple[str, float, str]
"""The network and the share that is removed, by which rows are sorted, and the line."""


def refreshed(page: str, cards: Iterable[Card]) -> str:
    """Return the page with its tables written anew."""
    published, cards = yaml.safe_load(PUBLISHED.read_text()), [card for card in cards if card.data == "cifar10"]
    page = with_table(page, "robust", robust_table(published, cards))
    return with_table(page, "conditioned", conditioned_table(published, cards))


def with_table(page: str, name: str, text: str) -> str:
    """Return the page with this table between its marks, two comments."""
    marked = f"<!-- {name} -->\n{text}\n<!-- end -->"
    page, count = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: marked, page, flags=re.DOTALL)
    assert count == 1, f"the page has {count} places for the table {name!r}, and should have one"
    return page


def robust_table(published: dict[str, Any], cards: list[Card]) -> str:
    """Lay out accuracies under AutoAttack, by network and by what is removed."""
    rows: list[Row] = []
    for group in published["robust"]:
        for model, figures in group["models"].items():
            for share, (clean, robust) in figures.items():
                cells = (group["network"], model, group["removed"], _removed(share), f"{clean:.2f}", f"{robust:.2f}")
                rows.append((group["network"], share or 0, line(*cells, "AutoAttack, 10,000", group["source"])))
    others = len(rows)
    for card in cards:
        found = lowest(card, EPS)
        if found is not None and _is_robustly_trained(card):
            removed = "channels" if "prune" in card.method else "ranks" if card.ranks else "nothing"
            share = 100 * card.compression
            cells = (_network(card), _bold_link(card), removed, _removed(share), *_ours(card, found))
            rows.append((_network(card), share, line(*cells, f"{_attack(found)}, {found.n:,}", "zoo")))
    none = "" if len(rows) > others else "\n\nNo model of the bundled hub has been trained for this threat model yet."
    return table("network|model|what is removed|removed, %|clean|robust|attack, images|figures by", rows) + none


def conditioned_table(published: dict[str, Any], cards: list[Card]) -> str:
    """Lay out accuracies over the CondLR paper's radii."""
    rows, group = [], published["conditioned"]
    for model, figures in group["models"].items():
        for removed, values in figures.items():
            share, printed = REMOVED[removed], ["-" if v is None else f"{v:.1f}" for v in values]
            text = line(model, _removed(share), *curve_cells(printed), "10,000", group["source"])
            rows.append((group["network"], share, text))
    for card in cards:
        if _network(card) == group["network"] and (accuracies := curve(card)):
            share, printed = 100 * card.compression, [f"**{100 * e.accuracy:.1f}**" for e in accuracies]
            text = line(_bold_link(card), _removed(share), *curve_cells(printed), f"{accuracies[0].n:,}", "zoo")
            rows.append((group["network"], share, text))
    return table("model|removed, %|clean|FGSM .002 / .004 / .006|L2-PGD .1 / .2 / .3|images|figures by", rows)


def curve(card: Card) -> list[Evaluation]:
    """Return the clean accuracy and those over CURVE: none if one is missing, or after adversarial training."""
    found = [e for e in (card.clean, *(lowest_of(card, threat) for threat in CURVE)) if e]
    return [] if _is_robustly_trained(card) or len(found) <= len(CURVE) else found


def curve_cells(printed: list[str]) -> tuple[str, str, str]:
    """Return the cells of a row for the clean accuracy, those in Linf and those in L2."""
    return printed[0], " / ".join(printed[1:4]), " / ".join(printed[4:])


def lowest_of(card: Card, threat: Threat) -> Evaluation | None:
    """Return the lowest accuracy under FGSM in Linf, under PGD in L2."""
    attack = "fgsm" if threat.norm == "Linf" else "pgd"
    few = [e for e in card.evaluations if e.attack == attack]
    return lowest(card.model_copy(update={"evaluations": tuple(few)}), threat)


def measured() -> list[Card]:
    """Return the cards of the models that come with zoo, and of those that are too large for that."""
    return [Card.load(path) for path in (*sorted(BUNDLED.glob("*/card.json")), *sorted(CARDS.glob("*.json")))]


def _is_robustly_trained(card: Card) -> bool:
    return card.training.get("adversary", "none") != "none"


def _network(card: Card) -> str:
    return NETWORKS.get(card.arch, card.arch)


def _ours(card: Card, found: Evaluation) -> tuple[str, str]:
    flag = " (masked gradients)" if card.gradient_masking else ""
    return (
        "-" if card.clean is None else f"**{100 * card.clean.accuracy:.2f}**"
    ), f"**{100 * found.accuracy:.2f}**{flag}"


def _bold_link(card: Card) -> str:
    return f"**{link(card, PAGE.parent)}**"


def link(card: Card, folder: Path) -> str:
    """Return a link to the card for a page in this folder."""
    own = CARDS / f"{card.name}.json"
    card_file = own if own.is_file() else BUNDLED / card.name / "card.json"
    return f"[`{card.name}`]({os.path.relpath(card_file.resolve(), folder)})"


def _attack(found: Evaluation) -> str:
    steps = found.options.get("steps")
    return "AutoAttack" if found.attack == "autoattack" else f"{found.attack}-{steps}" if steps else found.attack


def _removed(share: float | None) -> str:
    return "-" if share is None else f"{share:.0f}"


def line(*cells: str) -> str:
    """Lay out a table's row."""
    return f"| {' | '.join(cells)} |"


def table(head: str, rows: list[Row]) -> str:
    """Lay out a table: the names of its columns, and its rows, sorted."""
    columns = head.split("|")
    lines = [text for *_, text in sorted(rows, key=lambda row: (*row[:2], row[2]))]
    return "\n".join([line(*columns), f"|{'---|' * len(columns)}", *lines])


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(), measured()))
