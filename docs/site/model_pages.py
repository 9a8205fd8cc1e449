"""A page for each model with a card: those that come with zoo, and those of which only the card does."""

import re
from collections.abc import Iterable
from pathlib import Path

from tables import table

from zoo.attacks import format_eps
from zoo.hub.index import Summary
from zoo.hub.search import BUNDLED
from zoo.hub.table import short_count
from zoo.publishing.readme import readme
from zoo.runs.card import Card

CARDS = Path(__file__).parents[1] / "cards"
"""Cards of models that are too large to come with zoo."""
HEAD = ("model", "data", "parameters", "removed", "clean", "robust", "threat model", "images")


def cards() -> dict[str, Card]:
    """Return every card by the model's name."""
    found = [*Path(BUNDLED).glob("*/card.json"), *CARDS.glob("*.json")]
    loaded = [Card.load(path) for path in found]
    return {str(card.name): card for card in sorted(loaded, key=lambda card: str(card.name))}


def model_pages() -> dict[str, str]:
    """Return the pages by their path on the site."""
    found = cards()
    pages = {f"models/{name}.md": _page(card) for name, card in found.items()}
    intro = (
        "# Models\n\nThe model's page is its card: every figure with its attack, its images and the command that "
        "measures it again. `<` marks an upper bound, by a weaker attack than AutoAttack.\n\n"
    )
    return pages | {"models/index.md": intro + models_table(found.values(), "")}


def models_table(found: Iterable[Card], folder: str) -> str:
    """Return a table of models, each with a link to its page in ``folder``, which is relative and ends with a slash."""
    return table(HEAD, [_row(card, folder) for card in found])


def _row(card: Card, folder: str) -> tuple[str, ...]:
    summary, threat = Summary.of(card), card.threat_model
    robust = summary.robust_at(threat)
    bound = "" if robust is None or robust.attack == "autoattack" else "<"
    doubt = "".join(f", {words}" for words in card.doubts)
    return (
        f"[`{card.name}`]({folder}{card.name}.md)",
        card.data,
        short_count(card.params),
        f"{card.compression:.0%}",
        "-" if summary.clean is None else f"{summary.clean:.1%}",
        "-" if robust is None else f"{bound}{robust.accuracy:.1%}{doubt}",
        "-" if threat is None else f"{threat.norm} {format_eps(threat.eps)}",
        "-" if robust is None else f"{robust.n:,}",
    )


def _page(card: Card) -> str:
    if (Path(BUNDLED) / str(card.name)).is_dir():
        return readme(card)
    note = "The weights do not come with zoo; the command under [Provenance](#provenance) trains such a model."
    return re.sub(r"## Use\n.*?(?=\n## )", f"## Use\n\n{note}\n", readme(card), flags=re.DOTALL)
