"""Which attacks an evaluation runs, at which radii."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from zoo.attacks import ATTACKS, NORMS, Attack, Norm
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD

EPS: dict[Norm, tuple[float, ...]] = {"Linf": (0.002, 0.004, 0.006), "L2": (0.1, 0.2, 0.3)}
"""Radii at which models trained without attacks are compared (CondLR, arXiv 2306.01485)."""


@dataclass(frozen=True)
class Sweep:
    """One attack over a list of radii, in pixel units of [0, 1]: a robustness curve."""

    attack: Attack
    eps: tuple[float, ...]

    @property
    def name(self) -> str:
        """The attack and its norm, such as ``pgd L2``."""
        return f"{ATTACKS.name_of(self.attack)} {self.attack.norm}"


QUICK: tuple[Sweep, ...] = (
    Sweep(FGSM(norm="Linf"), EPS["Linf"]),
    Sweep(PGD(norm="Linf", steps=10, random_start=False), EPS["Linf"]),
    Sweep(PGD(norm="L2", steps=10, random_start=False), EPS["L2"]),
)
"""What `zoo train` ends with: a first look, which bounds the true robust accuracy from above.

PGD starts at the image: within such small radii ten steps from there break more than from a random point.
"""

BUNDLES: dict[str, tuple[Sweep, ...]] = {"quick": QUICK}
"""Sets of attacks that have a name of their own."""


def choose_sweeps(
    attacks: Sequence[str] = ("quick",),
    norms: Sequence[Norm] | None = None,
    eps: Sequence[float] | None = None,
    seed: int = 0,
) -> list[Sweep]:
    """Return attacks with their radii.

    Args:
        attacks: names of `BUNDLES` or of `zoo.attacks.ATTACKS`, the latter with their default settings.
        norms: of the perturbations; None: all, or only Linf if radii are given, which are of one norm.
        eps: radii; None: `EPS` of each norm.
        seed: of attacks with random choices.

    Raises:
        UserError: no attack has one of the names.
    """
    norms = norms or (("Linf",) if eps else NORMS)
    plain: list[Attack] = []
    for name in attacks:
        if name in BUNDLES:
            plain += [sweep.attack for sweep in BUNDLES[name] if sweep.attack.norm in norms]
        else:
            plain += [ATTACKS.get(name)(norm=norm) for norm in norms]
    radii = tuple(sorted(set(eps))) if eps else None
    return [Sweep(attack, radii or EPS[attack.norm]) for attack in dict.fromkeys(_seeded(a, seed) for a in plain)]


def _seeded(attack: Attack, seed: int) -> Attack:
    """Return the attack with a seed, if it takes one."""
    changes: dict[str, Any] = {"seed": seed} if "seed" in {field.name for field in fields(attack)} else {}
    return replace(attack, **changes)
