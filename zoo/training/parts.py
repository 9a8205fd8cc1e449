"""What is plugged into a training: a method, an adversary, a regularizer."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from zoo.adversaries import ADVERSARIES, Adversary
from zoo.adversaries.none import NoAdversary
from zoo.methods import METHODS, Method
from zoo.regularizers import REGULARIZERS, Regularizer
from zoo.regularizers.none import NoRegularizer


@dataclass(frozen=True)
class Parts:
    """The plugins of one training; they act on different things, so any go together."""

    method: Method
    adversary: Adversary = dataclasses.field(default_factory=NoAdversary)
    regularizer: Regularizer = dataclasses.field(default_factory=NoRegularizer)

    def named(self) -> dict[str, dict[str, Any]]:
        """Return each one's name and hyper-parameters under its flag, as in a configuration."""
        return {
            "method": {"name": METHODS.name_of(self.method), **dataclasses.asdict(self.method)},
            "adversary": {"name": ADVERSARIES.name_of(self.adversary), **dataclasses.asdict(self.adversary)},
            "regularize": {"name": REGULARIZERS.name_of(self.regularizer), **dataclasses.asdict(self.regularizer)},
        }
