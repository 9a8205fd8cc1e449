"""Which attacks an evaluation runs, at which radii: single attacks by name, or a tier."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from zoo.attacks import ATTACKS, NORMS, Attack, Norm
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.cr import CR
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.errors import unknown_name

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
    Sweep(PGD(norm="Linf", steps=20, random_start=False), EPS["Linf"]),
    Sweep(PGD(norm="L2", steps=20, random_start=False), EPS["L2"]),
)
"""The evaluation at the end of `zoo train`: a first look, which bounds the true robust accuracy from above.

PGD starts at the image: within such small radii twenty steps from there break more than from a random point.
"""


@dataclass(frozen=True)
class Tier:
    """A set of sweeps under a name, from a first look to a thorough search.

    Attributes:
        sweeps: with their default radii.
        norms: searched by default.
    """

    sweeps: tuple[Sweep, ...]
    norms: tuple[Norm, ...]


def _at_benchmark_radii(attack: type[Attack], **options: Any) -> tuple[Sweep, ...]:
    """At the radii of RobustBench (arXiv 2010.09670)."""
    radii: tuple[tuple[Norm, float], ...] = (("Linf", 8 / 255), ("L2", 0.5))
    return tuple(Sweep(attack(norm=norm, **options), (eps,)) for norm, eps in radii)


TIERS: dict[str, Tier] = {
    "quick": Tier(QUICK, NORMS),
    "reliable": Tier(_at_benchmark_radii(CR), ("Linf",)),
    "standard": Tier(_at_benchmark_radii(AutoAttack), ("Linf",)),
    "full": Tier(_at_benchmark_radii(AutoAttack, restarts=5), NORMS),
}
"""Named sets of attacks; only `standard` and `full` are AutoAttack."""


def choose_sweeps(
    attacks: Sequence[str] = ("quick",),
    norms: Sequence[Norm] | None = None,
    eps: Sequence[float] | None = None,
    seed: int = 0,
) -> list[Sweep]:
    """Return attacks with their radii.

    Args:
        attacks: names of `TIERS` or of `zoo.attacks.ATTACKS`, the latter with their default settings.
        norms: of the perturbations; None: those of the tier, both for an attack, or only Linf if radii are
            given, which are of one norm.
        eps: radii; None: those of the tier, or `EPS` for an attack.
        seed: of attacks with random choices.

    Raises:
        UserError: no attack has one of the names.
    """
    asked = norms or (("Linf",) if eps else None)
    chosen: list[Sweep] = []
    for name in attacks:
        tier = TIERS.get(name) or _tier_of(name)
        chosen += [sweep for sweep in tier.sweeps if sweep.attack.norm in (asked or tier.norms)]
    radii = tuple(sorted(set(eps))) if eps else None
    return list(dict.fromkeys(Sweep(_seeded(sweep.attack, seed), radii or sweep.eps) for sweep in chosen))


def _tier_of(name: str) -> Tier:
    """Return one attack with its default settings, in both norms."""
    if name not in ATTACKS.names():
        raise unknown_name("attack", name, [*TIERS, *ATTACKS.names()])
    attack = ATTACKS.get(name)
    return Tier(tuple(Sweep(attack(norm=norm), EPS[norm]) for norm in NORMS), NORMS)


def _seeded(attack: Attack, seed: int) -> Attack:
    """Return the attack with a seed, if it takes one."""
    changes: dict[str, Any] = {"seed": seed} if "seed" in {field.name for field in fields(attack)} else {}
    return replace(attack, **changes)
