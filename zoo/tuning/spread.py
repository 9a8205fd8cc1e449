"""A sweep whose trials are done by the workers of an engine, which share its storage as other processes do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from zoo.engines import enter
from zoo.tuning.sweep import Plan, Recipe, Settings, Sweep

if TYPE_CHECKING:
    from zoo.engines import Engine


@dataclass(frozen=True)
class Command:
    """A sweep, as each worker gets it.

    Attributes:
        words: of ``zoo train``, which every trial shares.
        search: the options that are searched.
        settings: of the sweep.
        read: reads such words; a function of a module.
        here: folder in which the command was given, from which its paths lead.
    """

    words: tuple[str, ...]
    search: tuple[str, ...]
    settings: Settings
    read: Callable[[list[str]], Recipe]
    here: str

    def open(self) -> Sweep:
        """Open the sweep.

        Raises:
            UserError: see `Plan.of` and `Sweep`.
        """
        return Sweep(Plan.of(self.words, self.search, self.settings, self.read), self.settings)


def run_trial(command: Command, _: int) -> list[str]:
    """Run the next trial of a sweep, and return lines on it, none if no trial was left; a worker calls it."""
    enter(command.here)
    lines: list[str] = []
    _opened(command).next(lines.append)
    return lines


def work_on(engine: Engine, sweep: Sweep, command: Command, say: Callable[[str], None]) -> None:
    """Run trials in the workers of an engine until none is left to begin.

    Args:
        engine: whose workers run them, one trial each at a time.
        sweep: the same one that the command opens.
        command: the sweep, for the workers.
        say: called with each line on a trial that has ended.

    Raises:
        UserError: see `zoo.engines.Engine.map` and `Sweep.work`.
    """
    # Each item is one trial, whichever the sweep gives; that of a lost worker is the first that it gives again.
    for _, lines in engine.map(run_trial, command, range(sweep.left), sweep.plan.base[0].device):
        for line in lines:
            say(line)


@lru_cache(maxsize=1)
def _opened(command: Command) -> Sweep:
    """Return the sweep of a command, which a worker opens once for all of its trials."""
    return command.open()
