"""Make hubs of cards that nobody trained, for tests: their figures are made up, their weights are empty."""

from collections.abc import Iterable
from pathlib import Path

from zoo.hub.download import digest
from zoo.hub.index import Entry, Index, Summary
from zoo.hub.search import BUNDLED
from zoo.runs.card import Card
from zoo.runs.records import Evaluation, Sanity, Threat, Timing

LINF, L2 = Threat(norm="Linf", eps=8 / 255), Threat(norm="L2", eps=0.5)
PARTS = ("apgd", "apgd_t", "fab_t", "square")


def autoattack(threat: Threat, accuracy: float, n: int = 1000, **changes: object) -> Evaluation:
    """Return the standard AutoAttack at a radius."""
    options = {"restarts": 1, "seed": 0}
    parts = {part: accuracy + 0.01 * (3 - i) for i, part in enumerate(PARTS)}
    found = Evaluation(
        attack="autoattack", norm=threat.norm, eps=threat.eps, accuracy=accuracy, n=n, options=options, parts=parts
    )
    return found.model_copy(update=changes)


def pgd(threat: Threat, accuracy: float, n: int = 1000) -> Evaluation:
    """Return PGD with twenty steps at a radius."""
    return Evaluation(
        attack="pgd", norm=threat.norm, eps=threat.eps, accuracy=accuracy, n=n, options={"steps": 20, "restarts": 1}
    )


def fgsm(threat: Threat, accuracy: float, n: int = 1000) -> Evaluation:
    """Return FGSM at a radius."""
    return Evaluation(attack="fgsm", norm=threat.norm, eps=threat.eps, accuracy=accuracy, n=n)


def make_card(
    name: str,
    threat: Threat | None,
    evaluations: Iterable[Evaluation],
    *,
    clean: float = 0.8,
    ms: float | None = 1.0,
    hardware: str = "One processor",
    masked: bool = False,
    **changes: object,
) -> Card:
    """Return a card with given figures and the layers of a bundled model."""
    first = next(path for path in sorted(BUNDLED.iterdir()) if path.is_dir())
    failures = ("zero_gradients",) if masked else ()
    timing = Timing(
        batch=1, median_ms=ms or 0.0, p95_ms=2 * (ms or 0.0), n=100, ratio_to_dense=0.5, hardware=hardware,
        provider="CPUExecutionProvider", threads=2,
    )  # fmt: skip
    unlike = {
        "name": name,
        "arch": name.partition(".")[0],
        "data": "cifar10",
        "threat": threat,
        "training": {"adversary": "none"},
        "evaluations": (
            Evaluation(attack="clean", norm=None, eps=0.0, accuracy=clean, n=10_000),
            *evaluations,
        ),
        "sanity": Sanity(failures=failures, zero_gradient_share=0.0, accuracy_at_large_eps=0.1, n=100),
        "latency": () if ms is None else (timing,),
    }
    card = Card.load(first / "card.json").model_copy(update=unlike | changes)
    return Card.model_validate(card.model_dump())


def write_hub(folder: Path, cards: Iterable[Card]) -> Path:
    """Write a hub of cards."""
    models = {}
    for card in cards:
        place = folder / str(card.name)
        place.mkdir(parents=True)
        contents = {"card.json": card.model_dump_json().encode(), "model.safetensors": b"weights"}
        for file, content in contents.items():
            (place / file).write_bytes(content)
        entry = {"files": {file: digest(content) for file, content in contents.items()}, "summary": Summary.of(card)}
        models[str(card.name)] = Entry.model_validate(entry)
    (folder / "index.json").write_bytes(Index(models=models).to_json())
    return folder
