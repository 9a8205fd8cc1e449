"""Draw docs/robustness.png from the cards of VGG16-BN without adversarial training: python tests/refresh_curves.py."""

from pathlib import Path

from refresh_published import CURVE, curve, measured

from zoo.evaluation.curve import Points, draw_panels
from zoo.runs.card import Card

PICTURE = Path(__file__).parents[1] / "docs" / "robustness.png"
ARCH = "vgg16_bn"


def lines(cards: list[Card], norm: str) -> dict[str, Points]:
    """Return (eps, accuracy) by method and share removed: FGSM in Linf, PGD in L2, the clean accuracy at eps 0."""
    found: dict[str, Points] = {}
    for card in cards:
        if card.arch == ARCH and (accuracies := curve(card)):
            clean, *others = (e.accuracy for e in accuracies)
            points = [(t.eps, accuracy) for t, accuracy in zip(CURVE, others, strict=True) if t.norm == norm]
            found[f"{card.method}, {card.compression:.0%} removed"] = [(0.0, clean), *points]
    return found


if __name__ == "__main__":
    cards = measured()
    panels = {"eps (FGSM, Linf)": lines(cards, "Linf"), "eps (PGD-20, L2)": lines(cards, "L2")}
    draw_panels(panels, PICTURE, "VGG16-BN on CIFAR-10")
    print(f"drawn in {PICTURE}")
