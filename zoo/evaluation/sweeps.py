"""Which attacks an evaluation runs, at which radii: single attacks by name, or a tier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from zoo.attacks import ATTACKS, NORMS, Attack, Norm, parse_eps
from zoo.attacks.apgd import APGD
from zoo.attacks.autoattack import AutoAttack
from zoo.attacks.cr import CR
from zoo.attacks.fgsm import FGSM
from zoo.attacks.pgd import PGD
from zoo.attacks.sigma_zero import SigmaZero
from zoo.errors import UserError, unknown_name

EPS: dict[Norm, tuple[float, ...]] = {
    "Linf": (0.002, 0.004, 0.006),
    "L2": (0.1, 0.2, 0.3),
    "L1": (1.0, 2.0, 4.0),
    "L0": (5.0, 10.0, 20.0),
}
"""Radii at which models trained without attacks are compared: in Linf and L2 those of CondLR (arXiv 2306.01485), in L0
numbers of pixels."""


@dataclass(frozen=True)
class Sweep:
    """One attack over a list of radii, in pixel units of [0, 1] (in L0 numbers of pixels): a robustness curve."""

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
        sweeps: with their default radii, in every norm that can be requested.
        norms: searched by default.
    """

    sweeps: tuple[Sweep, ...]
    norms: tuple[Norm, ...]


def _at_benchmark_radii(attack: type[Attack], **options: Any) -> tuple[Sweep, ...]:
    """At the radii of RobustBench (arXiv 2010.09670), and in L1 that of Mind the box (arXiv 2103.01208)."""
    radii: tuple[tuple[Norm, float], ...] = (("Linf", 8 / 255), ("L2", 0.5), ("L1", 12.0))
    return tuple(Sweep(attack(norm=norm, **options), (eps,)) for norm, eps in radii if norm in attack.norms)


PLAIN: tuple[Norm, ...] = ("Linf", "L2")
"""Norms that are searched if none are requested, by attacks that know them."""
WITHOUT_CR = (Sweep(APGD(norm="L1"), (12.0,)), Sweep(SigmaZero(), EPS["L0"]))
"""What the tier `reliable` runs in norms that CR does not know."""
TIERS: dict[str, Tier] = {
    "quick": Tier((*QUICK, Sweep(APGD(norm="L1", steps=40), EPS["L1"]), Sweep(SigmaZero(steps=100), EPS["L0"])), PLAIN),
    "reliable": Tier((*_at_benchmark_radii(CR), *WITHOUT_CR), ("Linf",)),
    "standard": Tier(_at_benchmark_radii(AutoAttack), ("Linf",)),
    "full": Tier(_at_benchmark_radii(AutoAttack, restarts=5), PLAIN),
}
"""Named sets of attacks; only `standard` and `full` are AutoAttack, which has no L0."""


def parse_radii(text: str) -> list[float] | dict[Norm, list[float]]:
    """Read radii, ``2/255,8/255``, or those of each norm: ``Linf=2/255,8/255,L2=0.5``.

    Raises:
        UserError: one is no radius, a norm is unknown, or some radii have a norm and others have none.
    """
    plain: list[float] = []
    named: dict[Norm, list[float]] = {}
    current = plain
    for word in filter(None, map(str.strip, text.split(","))):
        name, has_norm, radius = word.rpartition("=")
        if has_norm:
            norm = next((norm for norm in NORMS if norm == name.strip()), None)
            if norm is None:
                raise unknown_name("norm", name.strip(), NORMS)
            current = named.setdefault(norm, [])
        current.append(parse_eps(radius))
    if plain and named:
        raise UserError(f"eps {text!r} has radii without a norm: write Linf=2/255,8/255,L2=0.5, or radii of one norm")
    return named or plain


def choose_sweeps(
    attacks: Sequence[str] = ("quick",),
    norms: Sequence[Norm] | None = None,
    eps: Sequence[float] | Mapping[Norm, Sequence[float]] | None = None,
    seed: int = 0,
) -> list[Sweep]:
    """Return attacks with their radii.

    Args:
        attacks: names of `TIERS` or of `zoo.attacks.ATTACKS`, the latter with their default settings.
        norms: of the perturbations; None: those of the tier, Linf and L2 of an attack that has them, or only the first
            of them if radii are given, which are of one norm.
        eps: radii, of one norm or by norm; None: those of the tier, or `EPS` for an attack. Norms that have radii are
            searched if no ``norms`` are given.
        seed: of attacks with random choices.

    Raises:
        UserError: no attack has one of the names, or searches in one of the norms.
    """
    by_norm: dict[Norm, Sequence[float]] = dict(eps) if isinstance(eps, Mapping) else {}
    if norms and (unwanted := [norm for norm in by_norm if norm not in norms]):
        raise UserError(f"radii of {', '.join(unwanted)} without the norm: the norms are {', '.join(norms)}")
    norms = norms or list(by_norm) or None
    chosen: list[Sweep] = []
    for name in attacks:
        tier = TIERS.get(name) or _tier_of(name)
        wanted = norms or (tier.norms[:1] if eps else tier.norms)
        own = [sweep for sweep in tier.sweeps if sweep.attack.norm in wanted]
        if not own:
            can = ", ".join(dict.fromkeys(sweep.attack.norm for sweep in tier.sweeps))
            raise UserError(f"{name} does not search in {', '.join(wanted)}: its norms are {can}")
        chosen += own
    if attacks and (missing := [norm for norm in norms or () if norm not in {sweep.attack.norm for sweep in chosen}]):
        raise UserError(f"none of {', '.join(attacks)} searches in {', '.join(missing)}: see `zoo list --attacks`")
    found = []
    for sweep in chosen:
        radii = eps if eps and not isinstance(eps, Mapping) else by_norm.get(sweep.attack.norm)
        found.append(Sweep(_seeded(sweep.attack, seed), tuple(sorted(set(radii))) if radii else sweep.eps))
    return list(dict.fromkeys(found))


def _tier_of(name: str) -> Tier:
    """Return one attack with its default settings, in all of its norms."""
    if name not in ATTACKS.names():
        raise unknown_name("attack", name, [*TIERS, *ATTACKS.names()])
    attack = ATTACKS.get(name)
    sweeps = tuple(Sweep(attack(norm=norm), EPS[norm]) for norm in attack.norms)
    return Tier(sweeps, tuple(norm for norm in PLAIN if norm in attack.norms) or attack.norms)


def _seeded(attack: Attack, seed: int) -> Attack:
    """Return the attack with a seed, if it takes one."""
    changes: dict[str, Any] = {"seed": seed} if "seed" in {field.name for field in fields(attack)} else {}
    return replace(attack, **changes)
