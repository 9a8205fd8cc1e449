"""The plugins of a training: a method, an adversary, a regularizer, a finisher."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.adversaries import ADVERSARIES, Adversary
from zoo.adversaries.none import NoAdversary
from zoo.errors import UserError
from zoo.methods import METHODS, Method
from zoo.plugins import Plugins, renamed_options
from zoo.post_training import FINISHERS, Finisher
from zoo.post_training.none import NoFinisher
from zoo.regularizers import REGULARIZERS, Regularizer
from zoo.regularizers.none import NoRegularizer
from zoo.runs.config import plain


@dataclass(frozen=True)
class Parts:
    """The plugins of one training, in the order in which they act.

    They act on different things, so most can be combined; a combination without meaning is refused.

    Raises:
        UserError: two of them cannot be combined; the message says why.
    """

    method: Method
    adversary: Adversary = dataclasses.field(default_factory=NoAdversary)
    regularizer: Regularizer = dataclasses.field(default_factory=NoRegularizer)
    finisher: Finisher = dataclasses.field(default_factory=NoFinisher)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            plugin = getattr(self, each.name)
            options = {field.name: getattr(plugin, field.name) for field in dataclasses.fields(plugin)}
            if any(isinstance(value, np.generic) for value in options.values()):
                plugin = dataclasses.replace(plugin, **{name: plain(value) for name, value in options.items()})
                object.__setattr__(self, each.name, plugin)
        if self.method.trains_several and not self.adversary.takes_soft_targets:
            raise UserError(
                f"--method {METHODS.name_of(self.method)} does not go with --adversary "
                f"{ADVERSARIES.name_of(self.adversary)}, whose loss needs labels: smaller networks learn the answers "
                "of the largest; take n_fgsm, pgd or trades"
            )
        if self.method.trains_several and not isinstance(self.finisher, NoFinisher):
            raise UserError(
                f"--finish {FINISHERS.name_of(self.finisher)} does not go with --method "
                f"{METHODS.name_of(self.method)}: it would change the largest network alone; leave it out"
            )
        if reason := self.finisher.obstacle(adversarial=not isinstance(self.adversary, NoAdversary)):
            raise UserError(reason)

    def named(self) -> dict[str, dict[str, Any]]:
        """Return each one's name and hyper-parameters under its flag, as in a configuration."""
        return {flag: describe(kind, plugin) for flag, kind, plugin in self._by_flag()}

    def renamed(self) -> dict[str, str]:
        """Return the current keys of options by their earlier ones, as in a flat configuration: ``method.KEY``."""
        return {
            f"{flag}.{old}": f"{flag}.{new}"
            for flag, _, plugin in self._by_flag()
            for old, new in renamed_options(type(plugin)).items()
        }

    def applied(self, **outcomes: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the applied plugins, in order, for the card: plugins that do nothing are left out.

        Args:
            outcomes: of the plugins, by flag.
        """
        return [
            {"kind": kind.kind} | describe(kind, plugin) | ({"outcome": outcomes[flag]} if flag in outcomes else {})
            for flag, kind, plugin in self._by_flag()
            if kind.name_of(plugin) != "none"
        ]

    def _by_flag(self) -> tuple[tuple[str, Plugins[Any], Any], ...]:
        return (
            ("method", METHODS, self.method),
            ("adversary", ADVERSARIES, self.adversary),
            ("regularize", REGULARIZERS, self.regularizer),
            ("finish", FINISHERS, self.finisher),
        )


def describe(kind: Plugins[Any], plugin: Any) -> dict[str, Any]:
    """Return a plugin's name and hyper-parameters."""
    return {"name": kind.name_of(plugin), **dataclasses.asdict(plugin)}
