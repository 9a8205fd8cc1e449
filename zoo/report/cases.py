"""The conditions of accuracies, and which of them runs have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.attacks import format_eps
from zoo.report.figures import RunFigures
from zoo.runs.card import Card
from zoo.runs.records import Evaluation

STRENGTH = (
    "clean",
    "fgsm",
    "pgd",
    "square",
    "fab_t",
    "apgd",
    "apgd_t",
    "cr",
    "autoattack",
    "frame_rs",
    "patch_rs",
    "sparse_rs",
    "sigma_zero",
)
"""Attacks from weak to strong; an attack that is not in the list counts as the weakest."""

NAMES = {
    "autoattack": "AutoAttack",
    "sigma_zero": "sigma-zero",
    "sparse_rs": "Sparse-RS",
    "patch_rs": "Patch-RS",
    "frame_rs": "Frame-RS",
}
"""How attacks are written whose names are no abbreviations."""


@dataclass(frozen=True, order=True)
class Attack:
    """An attack with its settings, at any radius: equal ones may be compared.

    Attributes:
        strength: see `STRENGTH`.
        steps: gradient steps, 0 if it has none.
        name: the attack's.
        norm: ``Linf``, ``L2``, ``L0``, or ``""`` of clean accuracy.
        options: all its settings, in words.
    """

    strength: int
    steps: int
    name: str
    norm: str
    options: str

    @classmethod
    def of(cls, e: Evaluation) -> "Attack":
        """Return the attack of an evaluation."""
        strength = STRENGTH.index(e.attack) if e.attack in STRENGTH else -1
        steps = e.options.get("steps", 0)
        options = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in sorted(e.options.items()))
        return cls(strength, steps if isinstance(steps, int) else 0, e.attack, e.norm or "", options)

    @property
    def label(self) -> str:
        """The attack in a few words: ``PGD-20, L2``."""
        name = NAMES.get(self.name, self.name.upper().replace("_T", "-T"))
        return name.lower() if not self.norm else f"{name}{f'-{self.steps}' if self.steps else ''}, {self.norm}"


Key = tuple[Attack, float]
"""An attack at a radius."""


def accuracies(card: Card) -> dict[Key, Evaluation]:
    """Return a card's evaluations by attack and radius."""
    return {(Attack.of(e), e.eps): e for e in card.evaluations}


def clean(card: Card) -> float | None:
    """Return clean accuracy, if it was measured."""
    return next((e.accuracy for e in card.evaluations if e.attack == "clean"), None)


def all_keys(runs: Sequence[RunFigures]) -> list[Key]:
    """Return every attack and radius of any run: clean first, then by norm, strength and radius."""
    keys = {key for run in runs for key in accuracies(run.card)}
    return sorted(keys, key=lambda key: (key[0].norm != "", key[0].norm != "Linf", key[0], key[1]))


def reference(runs: Sequence[RunFigures], norm: str) -> Key | None:
    """Return the attack and radius for comparing runs in one norm: those that most of them have.

    Among several, the strongest attack, then the largest radius.
    """
    keys = [key for run in runs for key in accuracies(run.card) if key[0].norm == norm and key[1] > 0]
    return max(set(keys), key=lambda key: (keys.count(key), key[0], key[1]), default=None)


def key_text(key: Key) -> str:
    """Write an attack at a radius: ``PGD-20, L2 0.1``."""
    return f"{key[0].label} {format_eps(key[1])}" if key[0].norm else key[0].label


def curves(runs: Sequence[RunFigures]) -> list[Attack]:
    """Return the attacks to draw as curves, by norm and strength.

    An attack is left out if every run that has it also has the same attack with more steps.
    """
    having = {
        attack: {run.name for run in runs if any(key[0] == attack for key in accuracies(run.card))}
        for attack in {key[0] for key in all_keys(runs) if key[0].norm}
    }
    return sorted(
        (
            a
            for a in having
            if not any(
                (b.name, b.norm) == (a.name, a.norm) and b.steps > a.steps and having[a] <= having[b] for b in having
            )
        ),
        key=lambda a: (a.norm != "Linf", a),
    )
