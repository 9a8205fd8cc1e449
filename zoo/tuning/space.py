"""The values that a sweep tries: which options of a training, and from which ranges or lists."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from zoo.errors import UserError, unknown_name
from zoo.runs.config import TrainConfig

FIXED = {
    "data": "trials on other images cannot be compared",
    "data_dir": "trials on other images cannot be compared",
    "image_size": "trials on other images cannot be compared",
    "val_fraction": "trials on other images cannot be compared",
    "n": "trials on other images cannot be compared",
    "eps": "it is the radius at which trials are compared",
    "monitor": "it is the metric by which trials are pruned",
    "seed": "the best seed is luck",
    "out": "a sweep names its runs",
    "trainer": "its options cannot be searched",
}
"""Options of a training that a sweep must not change, and why."""
FORM = "write KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=VALUE,VALUE"
RANGE = re.compile(r"([^:,()]+):([^:,()]+?)(:log)?")
CHOICE = re.compile(r"(?:[^,()\[\]]|\([^()]*\)|\[[^\[\]]*\])+")
"""A value of a list: commas inside brackets belong to it."""


@dataclass(frozen=True)
class Dimension:
    """One option that is searched.

    Attributes:
        key: its flag of ``zoo train`` without the hyphens, such as ``lr`` or ``method.tau``.
        text: its values as the user wrote them.
        distribution: the same for Optuna; values of a list are texts.
    """

    key: str
    text: str
    distribution: BaseDistribution

    @classmethod
    def parse(cls, word: str, config: TrainConfig, plugins: dict[str, Any]) -> Dimension:
        """Read ``lr=0.02:0.2:log``, ``tau=0.1,1,9`` or ``method=lowrank,robust_lowrank``.

        Args:
            word: a key and its values.
            config: of the recipe.
            plugins: of the recipe, by flag; an option that only one of them has needs no flag before it.

        Raises:
            UserError: there is no such option, it must not be searched, or its values are malformed.
        """
        name, _, text = word.partition("=")
        if not text.strip():
            raise UserError(f"--search {word}: {FORM}")
        key, hint = _resolved(name.strip().replace("-", "_"), config, plugins)
        ends = RANGE.fullmatch(text.strip())
        return cls(key, text.strip(), _range(word, hint, *ends.groups()) if ends else _choices(word, text))

    def suggest(self, trial: Trial) -> str:
        """Return a trial's value, as it is written on a command line."""
        d = self.distribution
        if isinstance(d, FloatDistribution):
            return repr(trial.suggest_float(self.key, d.low, d.high, log=d.log))
        if isinstance(d, IntDistribution):
            return str(trial.suggest_int(self.key, d.low, d.high, log=d.log))
        assert isinstance(d, CategoricalDistribution)
        return str(trial.suggest_categorical(self.key, d.choices))

    def extremes(self) -> list[str]:
        """Return every value of a list, or both ends of a range, to be checked before any training."""
        d = self.distribution
        return [str(x) for x in (d.choices if isinstance(d, CategoricalDistribution) else (d.low, d.high))]  # type: ignore[attr-defined]


def parse_space(words: Sequence[str], config: TrainConfig, plugins: dict[str, Any]) -> tuple[Dimension, ...]:
    """Read the values of ``--search``.

    Raises:
        UserError: some are wrong (all are named), or an option is searched twice.
    """
    found, wrong = [], []
    for word in words:
        try:
            found.append(Dimension.parse(word, config, plugins))
        except UserError as error:
            wrong.append(str(error))
    keys = [dimension.key for dimension in found]
    wrong += [f"--search gives {key} twice: leave one out" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    for key in keys:
        flag, dot, _ = key.partition(".")
        if dot and flag in keys:
            wrong.append(f"--search {key} goes with one {flag}: leave {flag} or {key} out")
    if wrong:
        raise UserError("; ".join(wrong))
    if not found:
        raise UserError(f"nothing is searched: {FORM} after --search, such as lr=0.02:0.2:log")
    return tuple(found)


def _resolved(name: str, config: TrainConfig, plugins: dict[str, Any]) -> tuple[str, Any]:
    """Return the flag of an option and its type."""
    if name in FIXED:
        raise UserError(f"--search {name}: {FIXED[name]}, so it cannot be searched")
    own = get_type_hints(TrainConfig)
    if name in own:
        return name.replace("_", "-"), own[name]
    if name in plugins:
        return name, str
    options = {
        f"{flag}.{field.name}": get_type_hints(type(plugin))[field.name]
        for flag, plugin in plugins.items()
        for field in fields(plugin)
    }
    having = [key for key in options if name in (key, key.partition(".")[2])]
    if len(having) == 1:
        return having[0], options[having[0]]
    if having:
        raise UserError(f"--search {name} could be {' or '.join(having)}: write one of them")
    known = {*own.keys() - FIXED.keys(), *plugins, *(key.partition(".")[2] for key in options)}
    raise unknown_name("option to search", name, known, "zoo train --help")


def _range(word: str, hint: Any, low: str, high: str, log: str | None) -> BaseDistribution:
    kinds = {hint, *get_args(hint)}
    if not kinds & {int, float} or bool in kinds:
        raise UserError(f"--search {word}: this option is not a number; list its values, separated by commas")
    number = float if float in kinds else int
    try:
        first, last = number(low), number(high)
    except ValueError:
        kind = "whole numbers" if number is int else "numbers"
        raise UserError(f"--search {word}: the ends of this range must be {kind}; {FORM}") from None
    if not -math.inf < first < last < math.inf or (log and first <= 0):
        above = ", both above 0" if log else ""
        raise UserError(f"--search {word}: a range goes from a smaller to a larger number{above}")
    make = IntDistribution if number is int else FloatDistribution
    return make(first, last, log=bool(log))  # type: ignore[arg-type]


def _choices(word: str, text: str) -> CategoricalDistribution:
    values = [value.strip() for value in CHOICE.findall(text)]
    if not all(values) or len(set(values)) < 2 or ",".join(CHOICE.findall(text)) != text:
        raise UserError(f"--search {word}: give at least two values, separated by commas; {FORM}")
    return CategoricalDistribution(list(dict.fromkeys(values)))
